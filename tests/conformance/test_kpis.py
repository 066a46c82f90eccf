"""Every KPI keeps to the contract of its family; a new file is tested the day it lands."""

import math
from statistics import NormalDist
from typing import get_args

import numpy as np
import pytest

from cellwright.conformal import LEVELS
from cellwright.errors import UnknownName
from cellwright.kpis._contract import (
    Costs,
    Forecasts,
    Group,
    Runtime,
    cost_class,
    cost_kpis,
    forecast_kpis,
    group_of,
    kpi,
    names,
    probe_kpis,
)
from cellwright.kpis._probes import Probes
from cellwright.results import EnergyReading, Reading

SHAPE = (4, 3, 25, 1)  # windows, horizon, sites, targets


def forecasts(forecast: np.ndarray, truth: np.ndarray, mask: np.ndarray, quantiles: np.ndarray | None = None) -> Forecasts:
    """With all that any KPI looks at; `quantiles` are the forecast repeated, unless they are given."""
    return Forecasts(
        forecast,
        truth,
        mask,
        naive_mae=np.full((25, 1), 2.0),
        grid=(5, 5),
        quantiles=np.repeat(forecast[..., None], len(LEVELS), axis=-1) if quantiles is None else quantiles,
        levels=LEVELS,
        threshold_p90=np.full((25, 1), 190.0),
    )


def erring(truth: np.ndarray, errors: np.ndarray, spread: float, overconfident: float) -> Forecasts:
    """Relative errors of size `errors`, a site, up and down by turns; quantiles of deviation `spread`, errors as large or larger."""
    up_and_down = np.where(np.arange(truth.size) % 2, 1.0, -1.0).reshape(truth.shape)
    forecast = truth * (1 + up_and_down * errors[:, None]).astype(np.float32)
    rank = np.random.default_rng(4).permutation(truth.size).reshape(truth.shape)
    score = np.vectorize(NormalDist().inv_cdf)((rank + 0.5) / truth.size)  # of the truth in a distribution that is right
    levels = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
    quantiles = truth[..., None] * (1 + spread * (levels - overconfident * score[..., None]))
    return forecasts(forecast, truth, np.ones(truth.shape, bool), quantiles.astype(np.float32))


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(3).gamma(2.0, 50.0, SHAPE).astype(np.float32)


@pytest.mark.parametrize("name", names())
def test_it_says_what_it_is(name):
    member = kpi(name)
    assert member.title
    assert member.unit
    assert isinstance(member.lower_is_better, bool)
    assert member.span in ("forecast", "cost", "probe")
    assert member.ideal == (0.0 if member.lower_is_better else member.ideal)
    module = __import__(f"cellwright.kpis.{name}", fromlist=["x"])
    assert len(module.__doc__) > 40


@pytest.mark.parametrize("name", names("forecast"))
def test_a_perfect_forecast_is_ideal(name, truth):
    assert kpi(name).compute(forecasts(truth, truth, np.ones(SHAPE, bool))) == pytest.approx(kpi(name).ideal, abs=1e-12)


@pytest.mark.parametrize("name", names("forecast"))
def test_a_worse_forecast_is_worse(name, truth):
    """Larger errors, less evenly spread over the sites, with wider quantiles that are surer than they should be."""
    evenly, unevenly = np.full(25, 0.05), 0.5 * np.arange(1, 26) / 25
    near, far = (kpi(name).compute(erring(truth, *how)) for how in ((evenly, 0.05, 1.0), (unevenly, 0.5, 3.0)))
    assert (near < far) if kpi(name).lower_is_better else (near > far)


@pytest.mark.parametrize("name", names("forecast"))
def test_masked_targets_never_count(name, truth):
    rng = np.random.default_rng(5)
    mask = np.ones(SHAPE, bool)
    mask[:2, :, 3] = False  # two maps of each step keep every site: SSIM needs whole windows
    forecast = truth + rng.normal(0, 10, SHAPE).astype(np.float32)
    spoilt_forecast, spoilt_truth = (np.where(mask, a, np.nan) for a in (forecast, truth))
    wild = np.where(mask, forecast, 1e9)
    value = kpi(name).compute(forecasts(forecast, truth, mask))
    assert value == kpi(name).compute(forecasts(spoilt_forecast, spoilt_truth, mask))
    assert value == kpi(name).compute(forecasts(wild, truth, mask))


@pytest.mark.parametrize("name", names("forecast"))
def test_with_every_target_masked_it_is_absent(name, truth):
    assert kpi(name).compute(forecasts(truth, truth, np.zeros(SHAPE, bool))) is None


@pytest.mark.parametrize("name", names("cost"))
def test_a_cost_that_was_not_measured_is_absent_not_zero(name):
    assert kpi(name).compute(Costs()) is None


def test_every_cost_has_a_finite_value_when_everything_was_measured():
    part = Reading(energy_j=3.0, source="modelled")
    energy = EnergyReading(
        cpu=part, ram=part, gpu=part, duration_s=1, cpu_s=1, idle_w=None, co2_g=0.1, shared=False, meter="a test"
    )
    runtime = Runtime(np.array([0.001, 0.002]), 900.0)
    costs = cost_kpis(
        Costs(runtime, runtime, 10, 20, 30, 40, 5.0, 6.0, 0.0, energy, energy, 500),
    )
    assert all(value is not None and math.isfinite(value) for value in costs.values())


def test_every_kpi_stands_under_a_heading():
    groups = {name: group_of(name) for name in names()}
    assert {groups[name] for name in names("forecast")} == {"accuracy", "calibration", "fairness"}
    assert {groups[name] for name in names("cost")} == {"cost"}
    assert (groups["mae"], groups["pit_error"], groups["gini_error"]) == ("accuracy", "calibration", "fairness")


@pytest.mark.parametrize("name", names("forecast"))
def test_a_forecast_without_quantiles_and_thresholds_is_still_scored(name, truth):
    """As callers do that know of neither."""
    plain = Forecasts(truth, truth, np.ones(SHAPE, bool), naive_mae=np.full((25, 1), 2.0), grid=(5, 5))
    of_quantiles = {"crps", "pinball", "interval_width_80", "pit_error"} | {f"coverage_{c}_error" for c in (50, 80, 95)}
    absent = name in of_quantiles | {"f1", "precision", "recall"}
    assert (kpi(name).compute(plain) is None) == absent


def test_the_two_spans_share_no_name_and_an_unknown_one_is_explained(truth):
    assert set(forecast_kpis(forecasts(truth, truth, np.ones(SHAPE, bool)))) == set(names("forecast"))
    assert not set(names("forecast")) & set(names("cost"))
    with pytest.raises(UnknownName, match="Did you mean 'rmse'"):
        kpi("rmsee")


@pytest.mark.parametrize("name", names("probe"))
def test_a_dear_kpi_says_what_it_tells_and_is_absent_where_nothing_was_probed(name):
    assert cost_class(name) == "dear"
    assert kpi(name).group in get_args(Group)
    assert len(kpi(name).plain) > 20
    assert kpi(name).compute(Probes()) is None
    assert probe_kpis(Probes())[name] is None


def test_what_every_candidate_has_is_cheap():
    assert {cost_class(name) for name in (*names("forecast"), *names("cost"))} == {"cheap"}
