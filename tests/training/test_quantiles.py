"""Quantile heads: which levels are accepted, the pinball loss by hand, and a head that learns the quantiles of a known noise."""

from statistics import NormalDist

import numpy as np
import pytest
import torch

from cellwright.data.scaler import fit_scaler
from cellwright.data.split import split
from cellwright.data.windows import Windows
from cellwright.errors import ParamsError
from cellwright.forecaster import answer_panel, build, forecast_panel
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.training.batches import Fixed, Pool
from cellwright.training.candidates import resolve
from cellwright.training.fit import fit, mean_loss
from cellwright.training.losses import forecast_loss, loss_sum, pinball_sum
from models._contract import Batch

LEVELS = (0.1, 0.5, 0.9)


def test_levels_reach_the_problem(make_params, panel):
    problem = resolve(make_params(problem={"quantiles": LEVELS}), panel.schema, "mlp").problem
    assert problem.quantiles == LEVELS
    assert problem.out_quantiles == 3
    assert resolve(make_params(), panel.schema, "mlp").problem.quantiles == ()


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        ([0.9, 0.5, 0.1], r"ascending.*write \[0.1, 0.5, 0.9\]"),
        ([0.1, 0.5, 0.5], r"each once.*write \[0.1, 0.5\]"),
        ([0.1, 0.9], r"0.5 among them.*write \[0.1, 0.5, 0.9\]"),
    ],
)
def test_other_levels_are_refused_with_those_to_write(make_params, panel, levels, says):
    with pytest.raises(ParamsError, match=says):
        resolve(make_params(problem={"quantiles": levels}), panel.schema, "mlp")


def test_a_loss_that_has_no_quantiles_is_refused(make_params, panel):
    params = make_params(problem={"quantiles": LEVELS}, train={"settings": {"mlp": {"loss": "mse"}}})
    with pytest.raises(ParamsError, match=r"mlp: the loss is 'mse'.*set loss to 'mae'"):
        resolve(params, panel.schema, "mlp")


def test_the_pinball_loss_by_hand():
    """Truth 10. Below it, level q costs 2q a unit; above it 2(1 - q)."""
    forecast = torch.tensor([8.0, 9.0, 14.0]).reshape(1, 1, 1, 1, 3)
    target, mask = torch.full((1, 1, 1, 1), 10.0), torch.ones(1, 1, 1, 1)
    total, count = pinball_sum(LEVELS, forecast, target, mask)
    # 2·0.1·2 = 0.4; 2·0.5·1 = 1; 2·0.1·4 = 0.8
    assert total.item() == pytest.approx((0.4 + 1.0 + 0.8) / 3)
    assert count.item() == 1


def test_of_the_median_alone_it_is_the_mae_and_masked_targets_do_not_count():
    rng = torch.Generator().manual_seed(1)
    forecast, target = torch.randn(5, 3, 2, 1, 1, generator=rng), torch.randn(5, 3, 2, 1, generator=rng)
    mask = (torch.rand(5, 3, 2, 1, generator=rng) > 0.3).float()
    expected = loss_sum("mae", forecast[..., 0], target, mask)
    for found, wanted in zip(pinball_sum((0.5,), forecast, target, mask), expected, strict=True):
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_without_quantiles_the_loss_is_the_one_asked_for(make_params, panel):
    problem = resolve(make_params(), panel.schema, "mlp").problem
    forecast, one = torch.full((2, 3, 1, 1, 1), 3.0), torch.ones(2, 3, 1, 1)
    total, count = forecast_loss("mse", problem, forecast, Batch(one, one, one, one))
    assert (total.item(), count.item()) == (pytest.approx(24.0), 6)


@pytest.mark.parametrize("inputs", ["site", "patch", "all"])
@pytest.mark.parametrize("scaler", ["standard", "log"])
def test_quantiles_never_cross_and_the_point_forecast_is_the_middle_one(make_params, panel, inputs, scaler):
    params = make_params(problem={"inputs": inputs, "quantiles": LEVELS}, train={"scaler": scaler})
    candidate = resolve(params, panel.schema, "mlp")
    torch.manual_seed(0)
    forecaster = build(candidate, fit_scaler(panel, candidate.problem, scaler, (0, 300)))
    windows, origins = Windows(panel, candidate.problem), np.arange(50, 80)
    answer = answer_panel(forecaster, windows, origins, batch=7)
    assert answer.shape == (30, 3, 4, 1, 3)
    assert (np.diff(answer, axis=-1) >= 0).all()  # an untrained head says them in any order
    np.testing.assert_array_equal(forecast_panel(forecaster, windows, origins, batch=7), answer[..., 1])


def noisy_panel(rows: int = 1500) -> Panel:
    """Two sites without a pattern: a level and Gaussian noise, of deviation 5 and 20."""
    rng = np.random.default_rng(4)
    traffic = (np.array([100.0, 400.0]) + rng.normal(0, 1, (rows, 2)) * np.array([5.0, 20.0])).astype(np.float32)
    schema = PanelSchema(
        dataset="noise", sites=("a", "b"), features=(Feature(name="traffic", unit="Mbit/s"),), targets=("traffic",),
        cadence_s=1800, clock="relative", start_ms=0, rows=rows, segments=(Segment(name="all", start=0, stop=rows),),
        licence="CC0", attribution="",
    )  # fmt: skip
    return Panel.from_arrays(schema, {"traffic": traffic})


@pytest.mark.parametrize("key", ["mlp", "ridge"])
def test_a_trained_head_says_the_quantiles_of_the_noise(make_params, key):
    """Of independent Gaussian noise nothing can be foreseen: the quantiles are mean + z · deviation, whatever the history."""
    panel = noisy_panel()
    params = make_params(
        problem={"history": 3, "horizon": 2, "inputs": "site", "calendar": False, "quantiles": LEVELS},
        train={"max_epochs": 25, "patience": 25, "learning_rate": 3e-3, "settings": {"mlp": {"options": {"hidden": 8}}}},
    )
    candidate, spans = resolve(params, panel.schema, key), split(params.split, 0, panel.schema.rows)
    fitted, windows = fit(candidate, panel, spans), Windows(panel, candidate.problem)
    answer = answer_panel(fitted.forecaster, windows, np.arange(1300, 1400)).mean(axis=(0, 1))[:, 0]
    wanted = np.array([[100.0], [400.0]]) + np.array([[5.0], [20.0]]) * [NormalDist().inv_cdf(q) for q in LEVELS]
    np.testing.assert_allclose(answer, wanted, atol=2.0, rtol=0.01)
    held = Fixed(Pool(windows, windows.origins(*spans.validation)), batch=500)
    with torch.no_grad():
        loss = mean_loss(fitted.forecaster, held, "mae")
    assert loss == pytest.approx(fitted.validation_loss, rel=1e-5)
