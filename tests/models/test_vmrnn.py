"""VMRNN: four paths over an image, the cell's gate, tokens of a padded patch, and what its notes say of the padding."""

from __future__ import annotations

import pytest
import torch

from models import vmrnn
from models._layers import vss


def test_four_paths_over_two_by_three_places():
    image = torch.arange(6.0).reshape(1, 2, 3, 1)  # 0 1 2 / 3 4 5
    read = vss.paths(image)[0, :, :, 0].T.tolist()
    assert read == [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]


def test_every_path_comes_back_to_its_place():
    image = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(vss.merged(vss.paths(image), 3, 4), 4 * image)


def test_a_scan_reaches_every_place_from_every_other():
    """Along four paths the whole image is seen from anywhere; the convolution alone would see one place around."""
    torch.manual_seed(0)
    scan = vss.SS2D(4, state=4, expansion=2, places=25)
    image = torch.randn(1, 5, 5, 4)
    for corner in ((0, 0), (4, 4), (0, 4), (4, 0)):
        changed = image.clone()
        changed[0, corner[0], corner[1]] += 1.0
        assert bool((scan(changed) - scan(image)).abs().sum(-1).gt(0).all())


def test_the_gate_keeps_and_writes():
    """Blocks that say 0: keep = 1/2, nothing new; the memory halves and h is half of its tanh."""
    cell = vmrnn.Cell(4, 2, 9, vmrnn.Options(width=4))
    for block in cell.layers:
        torch.nn.init.zeros_(block.scan.leave.weight)  # a block then gives its input back
    memory = torch.randn(1, 3, 3, 4)
    h, after = cell(torch.zeros(1, 3, 3, 4), (torch.randn(1, 3, 3, 4), memory))
    torch.testing.assert_close(after, memory / 2)
    torch.testing.assert_close(h, (memory / 2).tanh() / 2)


def test_merging_and_expanding_keep_neighbours_together():
    image = torch.arange(16.0).reshape(1, 4, 4, 1).expand(1, 4, 4, 2)
    merge, expand = vmrnn.Merge(2), vmrnn.Expand(4)
    merge.norm = expand.norm = torch.nn.Identity()
    with torch.no_grad():
        merge.map.weight.fill_(1.0)  # each place sums its 2×2 × 2 features
        expand.map.weight.copy_(torch.eye(4).repeat(2, 1))
    merged = merge(image)
    assert merged[0, :, :, 0].tolist() == [[20.0, 36.0], [84.0, 100.0]]  # 2·(0+1+4+5), 2·(2+3+6+7) …
    expanded = expand(merged)
    assert expanded.shape == (1, 4, 4, 2)
    assert expanded[0, 2:, :2, 0].tolist() == [[84.0, 84.0], [84.0, 84.0]]


@pytest.mark.parametrize(
    ("preset", "edge", "padded", "centre"),
    [
        ("b", 11, 12, 1),
        ("d", 11, 16, 1),
        ("b-paper", 11, 12, 2),
        ("d-paper", 11, 16, 3),
        ("b", 5, 8, 0),
        ("d", 5, 16, 1),
        ("b", 1, 4, 0),
    ],
)
def test_a_patch_is_padded_to_whole_tokens_and_says_so(problem, preset, edge, padded, centre):
    options = {**vmrnn.Network.presets[preset], "width": 2, "depth": 1, "inner_depth": 1}
    network = vmrnn.Network(problem(inputs="patch", nodes=edge * edge), vmrnn.Options(**options))
    assert network.notes == {"padding": f"patch {edge}×{edge} padded to {padded}×{padded}"}
    assert network.blocks.core.centre == centre
    tokens = network.blocks.embed.encoder(torch.zeros(1, 6, edge * edge, 1), torch.zeros(1, 9, 0))
    assert tokens.shape[2:4] == (padded // network.options.token,) * 2


def test_a_patch_of_whole_tokens_needs_no_note(problem):
    assert vmrnn.Network(problem(inputs="patch", nodes=9), vmrnn.Options(token=3)).notes == {}


def test_the_centre_of_the_patch_lies_in_the_token_that_is_read(problem):
    """A change of the centre alone changes that token of the frame, and no other."""
    for preset in ("b", "d", "b-paper"):
        options = {**vmrnn.Network.presets[preset], "width": 8}
        network = vmrnn.Network(problem(inputs="patch", nodes=121), vmrnn.Options(**options))
        x = torch.zeros(1, 6, 121, 1)
        before = network.blocks.embed.encoder(x, torch.zeros(1, 9, 0))
        x[0, 0, 60] = 1.0
        changed = (network.blocks.embed.encoder(x, torch.zeros(1, 9, 0)) - before)[0, 0].abs().sum(-1).nonzero()
        assert changed.tolist() == [[network.blocks.core.centre] * 2]


def test_the_papers_d_goes_down_two_levels_and_up_again():
    places = [(level, depth) for level, depth, _ in vmrnn.itinerary(vmrnn.Options(**vmrnn.Network.presets["d-paper"]))]
    assert places == [(0, 2), (1, 6), (2, 6), (1, 2)]
    assert [level for level, _, _ in vmrnn.itinerary(vmrnn.Options())] == [0]
