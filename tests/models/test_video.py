"""What STN, PredRNN++ and their ConvLSTM compute, against their definitions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from models import predrnn_pp, stn
from models._contract import Problem
from models._layers.convlstm import ConvLSTM, taps


@pytest.fixture
def patch(problem) -> Any:
    """A patch of `side` × `side` sites, 6 steps in, one step out, traffic alone."""

    def build(side: int, **given: Any) -> Problem:
        return problem(inputs="patch", nodes=side * side, grid=(side, side), **({"horizon": 1} | given))

    return build


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_convlstm_equals_an_lstm_on_a_single_pixel():
    torch.manual_seed(0)
    conv, plain = ConvLSTM(2, 3, 1), torch.nn.LSTM(2, 3, batch_first=True)
    order = torch.cat([torch.arange(3) + 3 * gate for gate in (0, 1, 3, 2)])  # torch: input, forget, candidate, output
    with torch.no_grad():
        plain.weight_ih_l0.copy_(conv.into.weight.flatten(1)[order])
        plain.weight_hh_l0.copy_(conv.again.weight.flatten(1)[order])
        plain.bias_ih_l0.copy_(conv.into.bias[order])
        plain.bias_hh_l0.zero_()
    x = torch.randn(4, 6, 2)
    torch.testing.assert_close(conv(x[..., None, None])[..., 0, 0], plain(x)[0])


def test_convlstm_carries_a_pixel_one_place_further_each_step():
    conv = ConvLSTM(1, 1, 3)
    x = torch.zeros(1, 3, 1, 7, 7)
    lit = x.clone()
    lit[0, 0, 0, 3, 3] = 1.0
    moved = (conv(lit) - conv(x)).abs()[0, :, 0].amax(1) > 1e-9
    assert [row.nonzero().flatten().tolist() for row in moved] == [[2, 3, 4], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize(("side", "kernel"), [(1, 1), (2, 3), (3, 5), (11, 5)])
def test_kernels_do_not_reach_further_than_the_image(side, kernel):
    assert taps(5, side) == kernel


def test_stn_has_the_published_parameters(patch):
    """576,755 at 6 frames of 11 × 11: per block 3D convolutions and ConvLSTM, then 2,178 → 256 → 64 → 1."""
    options = stn.Options(**stn.Network.presets["paper"])
    network = stn.Network(patch(11), options)
    first, second = (parameters(fusion) for fusion in network.blocks.core.fusions)
    assert first == (27 * 1 * 3 + 3) + 2 * (27 * 3 * 3 + 3) + (9 * (1 + 3) * 12 + 12)
    assert second == 3 * (27 * 3 * 3 + 3) + (9 * (3 + 3) * 12 + 12)
    assert parameters(network) == first + second + (6 * 121 * 3 * 256 + 256) + (256 * 64 + 64) + (64 + 1) == 576_755


def test_stn_block_is_the_mean_of_its_two_ways():
    torch.manual_seed(0)
    fusion = stn.Fusion(2, 5, stn.Options(channels=3, convolutions=2))
    h = torch.randn(2, 6, 2, 5, 5)
    convolved, remembered = fusion.convs(h.transpose(1, 2)).transpose(1, 2), fusion.lstm(h)
    torch.testing.assert_close(fusion(h), (convolved + remembered) / 2)


def test_instance_norm_takes_the_level_of_a_window_away():
    torch.manual_seed(0)
    fusion = stn.Fusion(1, 5, stn.Options(norm="instance", kernel=1))
    h = torch.randn(2, 6, 1, 5, 5)
    torch.testing.assert_close(fusion.convs(h.transpose(1, 2) + 7.0), fusion.convs(h.transpose(1, 2)), rtol=1e-3, atol=1e-4)


def step_of(layer: predrnn_pp.CausalLSTM, x: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's five equations on a single pixel, gate by gate, with the layer's weights as plain matrices."""
    n = layer.hidden

    def part(of: torch.nn.Conv2d, index: int, value: Tensor) -> Tensor:
        return value @ of.weight[index * n : (index + 1) * n, :, 0, 0].T

    def of_x(index: int) -> Tensor:
        return part(layer.of_x, index, x) + layer.of_x.bias[index * n : (index + 1) * n]

    i, f, g = (of_x(j) + part(layer.of_state, j, torch.cat((h, c), 1)) for j in range(3))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    i, f, g = (of_x(3 + j) + part(layer.of_memories, j, torch.cat((c, m), 1)) for j in range(3))
    m = torch.sigmoid(f) * torch.tanh(part(layer.mapped, 0, m)) + torch.sigmoid(i) * torch.tanh(g)
    both = torch.cat((c, m), 1)
    return torch.tanh(of_x(6) + part(layer.out, 0, both)) * torch.tanh(part(layer.merge, 0, both)), c, m


def test_causal_lstm_keeps_to_the_equations():
    torch.manual_seed(0)
    layer = predrnn_pp.CausalLSTM(2, 5, 3, 1)
    x, h, c, m = (torch.randn(4, width) for width in (2, 3, 3, 5))
    as_images = [value[..., None, None] for value in (x, h, c, m)]
    got = layer(layer.of_x(as_images[0]), *as_images[1:])
    for image, expected in zip(got, step_of(layer, x, h, c, m), strict=True):
        torch.testing.assert_close(image[..., 0, 0], expected)


def test_highway_keeps_its_state_where_the_switch_is_closed_and_takes_the_new_where_it_is_open():
    highway = predrnn_pp.Highway(1, 1, 3)
    x, z = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3)
    with torch.no_grad():
        highway.of_both.weight.zero_()
        highway.of_both.bias.copy_(torch.tensor([0.5, -50.0]))
        torch.testing.assert_close(highway(x, z), z)
        highway.of_both.bias.copy_(torch.tensor([0.5, 50.0]))
        torch.testing.assert_close(highway(x, z), torch.full_like(z, 0.5).tanh())


def test_spatial_memory_travels_from_the_top_of_a_step_to_the_bottom_of_the_next(patch):
    """Recorded as it passes: layer 2 gets what layer 1 made in the same step, layer 1 what the top made a step before."""
    torch.manual_seed(0)
    core = predrnn_pp.Network(patch(3), predrnn_pp.Options(channels=4, upper=2, layers=3)).blocks.core
    seen: list[tuple[int, Tensor, Tensor]] = []
    for number, layer in enumerate(core.layers):
        layer.register_forward_hook(lambda _, given, out, n=number: seen.append((n, given[3], out[2])))
    core({"h": torch.randn(1, 4, 1, 3, 3)})
    assert [number for number, _, _ in seen] == [0, 1, 2] * 4
    assert not seen[0][1].any()
    for (_, _, made), (_, given, _) in pairwise(seen):
        assert made is given


@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 9, 11, 12, 21])
def test_the_centre_lies_in_the_middle_place(patch, side):
    places = predrnn_pp.Places(patch(side), 0)
    x = torch.zeros(1, 6, side * side, 1)
    x[:, :, (side // 2) * side + side // 2] = 1.0
    lit = places(x, torch.zeros(1, 7, 0))[0, 0].amax(0)
    assert places.grid == (1 if side == 1 else 3)
    assert lit.nonzero().tolist() == [[places.grid // 2] * 2]


def test_pieces_keep_every_pixel(patch):
    places = predrnn_pp.Places(patch(5), 0)
    x = torch.arange(1.0, 26.0).reshape(1, 1, 25, 1).expand(1, 6, 25, 1)
    image = places(x, torch.zeros(1, 7, 0))
    assert image.shape == (1, 6, 4, 3, 3)
    assert sorted(image[0, 0].flatten().tolist()) == [0.0] * 11 + list(range(1, 26))
