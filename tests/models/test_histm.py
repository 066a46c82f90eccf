"""HiSTM: the published size, the lazy computation against the whole one, its attention, its maps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models import histm


def build(problem, **options):
    torch.manual_seed(0)
    network = histm.Network(problem, histm.Options(**options)).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # fresh heads hardly answer
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def test_the_published_set_up_has_the_published_size(problem):
    """6 steps of 11×11, one target, one step ahead: 94 % fewer parameters than STN's 576,755."""
    published = problem(inputs="patch", nodes=121, horizon=1)
    network = histm.Network(published, histm.Options(**histm.Network.presets["paper"]))
    convolutions, mambas, norms = (9 + 1) * 32 + (9 * 32 + 1) * 32, 2 * 9920, 2 * 64
    attention, head = 33, 33 * 128 + 129
    assert sum(p.numel() for p in network.parameters()) == convolutions + mambas + norms + attention + head == 33_922


@pytest.mark.parametrize("edge", [1, 3, 5, 11])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_only_what_the_centre_sees_is_computed_and_nothing_is_lost(problem, edge, layers):
    """Against every layer at every position, with the zero-padded convolutions of the paper."""
    asked = problem(inputs="patch", nodes=edge * edge, features=("traffic", "valid"))
    network = build(asked, layers=layers, width=8, state=4)
    x = torch.randn(3, 6, edge * edge, 2)
    h = x.unflatten(2, (edge, edge)).permute(0, 1, 4, 2, 3)
    for layer in network.blocks.core.layers:
        h = layer(functional.pad(h, (1, 1, 1, 1)))
    whole = h[..., edge // 2, edge // 2]
    lazy = network.blocks.core.sequence(network.blocks.embed({"x": x, "known": torch.zeros(3, 9, 0)}))
    torch.testing.assert_close(lazy, whole, rtol=1e-4, atol=1e-5)


def test_a_site_out_of_reach_does_not_matter(problem):
    """Two 3×3 layers see 5×5; with residual "linear" the whole patch counts."""
    asked = problem(inputs="patch", nodes=49, features=("traffic", "valid"))
    x, known = torch.randn(2, 6, 49, 2), torch.zeros(2, 9, 0)
    corner, near = x.clone(), x.clone()
    corner[:, :, 0] += 1.0
    near[:, :, 8] += 1.0  # a corner of the 5×5
    alone = build(asked, residual="last")
    torch.testing.assert_close(alone(corner, known), alone(x, known), rtol=0, atol=0)
    assert bool((alone(near, known) - alone(x, known)).any())
    assert bool((build(asked)(corner, known) - build(asked)(x, known)).any())


def test_attention_weighs_the_steps(problem):
    """Scores 0, ln 2 and ln 5: shares 1/8, 2/8 and 5/8."""
    attention = histm.Attention(1)
    with torch.no_grad():
        attention.score.weight.fill_(1.0)
        attention.score.bias.fill_(3.0)  # shifts every score alike: nothing changes
    h = torch.tensor([1.0, 2.0, 5.0]).log().reshape(1, 3, 1)
    expected = (2 * h[0, 1, 0] + 5 * h[0, 2, 0]) / 8
    torch.testing.assert_close(attention(h), expected.reshape(1, 1))


@pytest.mark.parametrize("edge", [3, 7])
def test_maps_of_small_and_of_wide_patches(problem, edge):
    """A patch narrower than the layers' reach ends at its own border, a wider one at the grid's."""
    features = ("traffic", "users", "traffic@144", "users@144", "valid")
    asked = problem(
        inputs="patch", nodes=edge**2, features=features, targets=("traffic", "users"), lags=(144,), known=("hour", "weekend")
    )
    network = build(asked)
    x, known = torch.randn(2, 6, 4, 5, 5), torch.rand(2, 9, 2)
    rim = edge // 2
    around = functional.pad(x, (0, 0, rim, rim, rim, rim))
    each = [network(around[:, :, r : r + edge, c : c + edge].flatten(2, 3), known) for r in range(4) for c in range(5)]
    torch.testing.assert_close(network.forward_map(x, known), torch.cat(each, 2), rtol=1e-4, atol=1e-5)


def test_an_even_kernel_has_no_centre():
    with pytest.raises(ValueError, match="kernel must be odd"):
        histm.Options(kernel=4)
