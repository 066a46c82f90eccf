"""N-HiTS, TiDE and TSMixer: the mechanism of each, on inputs whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models import nhits, tide, tsmixer
from models._layers.future import Future

KNOWN = ("hour", "hour_sin", "hour_cos", "week_sin", "week_cos", "weekend")


@pytest.mark.parametrize(
    ("knots", "steps", "kind", "values"),
    [
        (1, 3, "linear", [0.0, 0.0, 0.0]),
        (2, 4, "linear", [0.0, 0.25, 0.75, 1.0]),  # knots in the middle of each half
        (2, 4, "nearest", [0.0, 0.0, 1.0, 1.0]),
        (3, 3, "linear", [0.0, 1.0, 2.0]),
        (2, 3, "nearest", [0.0, 0.0, 1.0]),
    ],
)
def test_knots_are_interpolated(knots, steps, kind, values):
    line = torch.arange(knots, dtype=torch.float32)
    assert (line @ nhits.interpolation(knots, steps, kind)).tolist() == pytest.approx(values)


@pytest.mark.parametrize(("knots", "steps"), [(1, 5), (2, 3), (4, 13), (6, 24)])
def test_interpolation_is_that_of_a_resized_picture(knots, steps):
    row = torch.randn(1, 2, knots, generator=torch.Generator().manual_seed(0))
    resized = functional.interpolate(row, steps, mode="linear", align_corners=False)
    torch.testing.assert_close(row @ nhits.interpolation(knots, steps, "linear"), resized)
    nearest = functional.interpolate(row, steps, mode="nearest")
    torch.testing.assert_close(row @ nhits.interpolation(knots, steps, "nearest"), nearest)


def test_nhits_pools_the_largest_of_each_stretch_and_a_coarse_stack_gives_a_flat_forecast(problem):
    sizes = nhits.Sizes(signals=1, history=5, extra=0, series=1, horizon=3)
    block = nhits.Block(sizes, nhits.Options(), 0, explains=True)
    assert block.pool(torch.tensor([[[1.0, 5.0, 2.0, 3.0, 4.0]]])).tolist() == [[[5.0, 3.0, 4.0]]]
    backcast, forecast = block(torch.randn(4, 1, 5), torch.zeros(4, 0))
    assert forecast.shape == (4, 1, 3)
    torch.testing.assert_close(forecast, forecast[..., :1].expand_as(forecast))  # 4 steps a knot, and a horizon of 3: one knot
    assert backcast.shape == (4, 1, 5)


def test_each_block_of_nhits_reads_what_the_ones_before_left(problem):
    core = nhits.Core(nhits.Sizes(signals=1, history=6, extra=2, series=1, horizon=3), nhits.Options())
    signal, extra = torch.randn(3, 1, 6), torch.randn(3, 2)
    left, forecasts = signal, []
    for block in core.layers:
        backcast, forecast = block(left, extra)
        forecasts.append(forecast)
        left = left if backcast is None else left - backcast
    assert [block.backcast is None for block in core.layers] == [False, False, True]
    torch.testing.assert_close(core({"h": signal, "extra": extra})["h"], sum(forecasts))


def test_nhits_wants_one_entry_a_stack():
    with pytest.raises(ValueError, match="one entry a stack"):
        nhits.Options(pooling=(2, 1))
    with pytest.raises(ValueError, match="at least 1"):
        nhits.Options(pooling=(2, 2, 0))


def test_what_is_known_of_each_target_step(problem):
    """Lag 4 with history 2 and horizon 3: the values of the last two target steps are in x, that of the first is not."""
    p = problem(history=2, known=("hour",), lags=(4,), features=("traffic", "traffic@4"))
    x = torch.tensor([[[[0.0, 7.0]], [[0.0, 8.0]]]])
    known = torch.tensor([[[0.1], [0.2], [0.3], [0.4], [0.5]]])
    future = Future(p)
    assert future.width == 2
    torch.testing.assert_close(future(x, known), torch.tensor([[[0.3, 0.0], [0.4, 7.0], [0.5, 8.0]]]))


def test_a_step_of_tide_feels_its_own_calendar_directly(problem):
    """Without what the dense layers make of it, only the step whose calendar changed moves: the step decoder's short way."""
    p = problem(known=KNOWN)
    network = tide.Network(p, tide.Options(dropout=0.0, residual="none")).eval()
    with torch.no_grad():
        for parameter in network.blocks.core.parameters():
            parameter.zero_()
    x, known = torch.randn(2, 6, 1, 1), torch.rand(2, 9, 6)
    later = known.clone()
    later[:, 7] = 1 - later[:, 7]
    moved = (network(x, later) - network(x, known)).abs().amax((0, 2, 3, 4)) > 1e-6
    assert moved.tolist() == [False, True, False]


def test_tide_starts_from_a_linear_map_of_the_history(problem):
    """The way past all dense layers, which starts as persistence."""
    network = tide.Network(problem(), tide.Options()).eval()
    with torch.no_grad():
        for parameter in network.blocks.head.parameters():
            parameter.zero_()
    x = torch.randn(2, 6, 1, 1)
    torch.testing.assert_close(network(x, torch.zeros(2, 9, 0))[:, :, 0, 0, 0], x[:, -1, 0].expand(2, 3))


def test_tsmixer_mixes_steps_of_one_feature_then_features_of_one_step():
    torch.manual_seed(0)
    h = torch.randn(1, 5, 4)
    along_time, along_features = tsmixer.TimeMixing(5, 4, 0.0), tsmixer.FeatureMixing(5, 4, 8, 0.0)
    for layer, kept in ((along_time, 2), (along_features, 1)):
        layer.norm = torch.nn.Identity()  # it alone sees all steps and features
        changed = h.clone()
        changed[0, 3, 2] += 2.0
        moved = (layer(changed) - layer(h)).abs() > 1e-7
        where = moved.nonzero()[:, kept].unique().tolist()
        assert where == ([2] if kept == 2 else [3])
        assert int(moved.sum()) > 1


def test_time_mixing_is_a_linear_map_along_the_steps():
    torch.manual_seed(0)
    layer, h = tsmixer.TimeMixing(5, 4, 0.0), torch.randn(3, 5, 4)
    by_hand = h + functional.relu(layer.map(layer.norm(h).transpose(1, 2))).transpose(1, 2)
    torch.testing.assert_close(layer(h), by_hand)
