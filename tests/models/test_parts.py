"""The parts of single networks, on small inputs whose answer is known."""

from __future__ import annotations

import pytest
import torch

from models import dlinear, itransformer, lstm, patchtst, stgcn, tcn
from models._layers.frame import Context, Linear


def test_moving_average_repeats_the_ends():
    assert (dlinear.averaging(4, 3) @ torch.tensor([3.0, 6.0, 9.0, 0.0])).tolist() == pytest.approx([4.0, 6.0, 5.0, 3.0])


def test_moving_average_shrinks_to_the_history():
    torch.testing.assert_close(dlinear.averaging(6, 25), dlinear.averaging(6, 6))


def test_trend_and_remainder_add_up_to_the_history(problem):
    x = torch.randn(2, 6, 1, 1)
    parts = dlinear.Decomposition(problem(), 5)(x, torch.zeros(2, 9, 0))
    torch.testing.assert_close(parts.sum(1), x.flatten(2))


@pytest.mark.parametrize(("history", "kernel", "levels"), [(5, 3, 1), (6, 3, 2), (13, 3, 2), (14, 3, 3), (2, 2, 1)])
def test_tcn_has_as_many_levels_as_see_the_history(history, kernel, levels):
    assert tcn.levels_for(history, kernel) == levels


def test_tcn_sees_the_first_step_and_is_causal(problem):
    conv = tcn.CausalConv(1, 1, 3, 2)
    h = torch.randn(1, 1, 8)
    changed = h.clone()
    changed[..., 5] += 1.0
    moved = (conv(changed) - conv(h)).abs() > 1e-6
    assert moved.flatten().nonzero().flatten().tolist() == [5, 7]  # itself and two later; nothing before
    core = tcn.Core(1, 6, tcn.Options(dropout=0.0)).eval()
    x = torch.randn(1, 6, 1)
    early = x.clone()
    early[:, 0] += 5.0
    assert not torch.equal(core({"h": x})["h"], core({"h": early})["h"])


def test_weight_normalised_convolution_starts_as_a_plain_one():
    torch.manual_seed(0)
    conv = tcn.CausalConv(2, 3, 3, 1)
    torch.manual_seed(0)
    plain = torch.nn.Conv1d(2, 3, 3)
    h = torch.randn(1, 2, 5)
    torch.testing.assert_close(conv(h)[..., 2:], plain(h))


@pytest.mark.parametrize(
    ("history", "length", "stride", "places"),
    [
        (6, 0, 0, [[0, 1], [2, 3], [4, 5]]),
        (6, 2, 1, [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]),
        (6, 3, 3, [[0, 1, 2], [3, 4, 5]]),
        (7, 3, 3, [[1, 2, 3], [4, 5, 6]]),  # the newest steps are never left out
        (1, 0, 0, [[0]]),
    ],
)
def test_patches_end_at_the_newest_step(history, length, stride, places):
    assert patchtst.patches(history, length, stride).tolist() == places


def test_patch_that_does_not_fit_is_refused(problem):
    with pytest.raises(ValueError, match="a patch of 16 steps does not fit a history of 6"):
        patchtst.Network(problem(), patchtst.Options(patch_length=16))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of heads"):
        patchtst.Options(width=30, heads=4)


def test_revin_makes_patchtst_blind_to_level_and_scale(problem):
    """Full RevIN without another base: f(a x + b) = a f(x) + b, up to the floor of the deviation."""
    torch.manual_seed(0)
    network = patchtst.Network(problem(), patchtst.Options(revin="full", residual="none")).eval()
    x, known = torch.randn(4, 6, 1, 1) * 50, torch.zeros(4, 9, 0)
    torch.testing.assert_close(network(3 * x + 7, known), 3 * network(x, known) + 7, rtol=1e-3, atol=1e-2)


def test_linear_base_starts_as_persistence_of_the_centre(problem):
    p = problem(inputs="patch", nodes=9, features=("traffic", "users", "valid"), targets=("traffic", "users"))
    x = torch.randn(2, 6, 9, 3)
    torch.testing.assert_close(Linear(p)(x)[..., 0], x[:, -1:, 4:5, :2].expand(-1, 3, -1, -1))


def test_context_is_the_calendar_and_the_lags_of_the_target_steps(problem):
    p = problem(features=("traffic", "traffic@12"), lags=(12,), known=("hour",))
    x = torch.stack((torch.zeros(6), torch.arange(6.0)), -1)[None, :, None]
    known = torch.arange(9.0)[None, :, None]
    assert Context(p)(x, known).tolist() == [[6.0, 7.0, 8.0, 3.0, 4.0, 5.0]]


def test_a_network_names_the_inputs_it_prefers():
    assert lstm.Network.preferred_inputs(25, on_grid=True) == "patch"
    assert lstm.Network.preferred_inputs(25, on_grid=False) == "site"


@pytest.mark.parametrize("network", [itransformer.Network, stgcn.Network])
def test_a_long_history_is_no_reason_to_leave_all_sites_where_cost_grows_with_them_alone(network):
    assert network.preferred_inputs(400, on_grid=True, values_per_site=144) == "all"
    assert network.preferred_inputs(network.max_sites, on_grid=True, values_per_site=6) == "all"
    assert network.preferred_inputs(network.max_sites + 1, on_grid=True, values_per_site=1) == "patch"
    assert network.preferred_inputs(network.max_sites + 1, on_grid=False, values_per_site=1) == "site"
