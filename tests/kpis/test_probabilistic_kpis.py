"""Quantiles, busy hours and fairness: KPIs on tiny arrays worked out by hand."""

import numpy as np
import pytest

from cellwright.kpis import (
    coverage_50_error,
    coverage_80_error,
    coverage_95_error,
    crps,
    f1,
    gini_error,
    interval_width_80,
    pinball,
    pit_error,
    precision,
    recall,
    worst_decile,
)
from cellwright.kpis._contract import Forecasts

THREE = (0.1, 0.5, 0.9)
SEVEN = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)


def spread(truth: list[float], quantiles: list[list[float]], levels: tuple[float, ...] = THREE) -> Forecasts:
    """One site, step and target; a window a value."""
    y = np.array(truth, np.float32).reshape(-1, 1, 1, 1)
    q = np.array(quantiles, np.float32).reshape(len(y), 1, 1, 1, -1)
    return Forecasts(y, y, np.ones(y.shape, bool), quantiles=q, levels=levels)


def sites(forecast: list[list[float]], truth: list[list[float]], **more) -> Forecasts:
    """A row a step, a column a site; one window and target."""
    f, y = (np.array(a, float)[None, :, :, None] for a in (forecast, truth))
    return Forecasts(f, y, np.ones(y.shape, bool), **more)


def test_pinball_and_crps_by_hand():
    """Truth 10 and 20 against 8, 9, 14 and 18, 22, 23.

    Level 0.1: 2·0.1·2 = 0.4 and 0.4. Level 0.5: 1 and 2. Level 0.9: 2·0.1·4 = 0.8 and 2·0.1·3 = 0.6.
    """
    span = spread([10, 20], [[8, 9, 14], [18, 22, 23]])
    assert pinball.compute(span) == pytest.approx((0.4 + 1.5 + 0.7) / 3)
    # nearest to 0.1 are the levels up to 0.3, to 0.5 those up to 0.7
    assert crps.weights(THREE) == pytest.approx([0.3, 0.4, 0.3])
    assert crps.compute(span) == pytest.approx(0.3 * 0.4 + 0.4 * 1.5 + 0.3 * 0.7)


def test_one_value_at_every_level_has_its_mae_as_crps():
    span = spread([10, 20], [[13] * 7, [19] * 7], SEVEN)
    assert crps.compute(span) == pytest.approx((3 + 1) / 2)
    assert crps.weights(SEVEN) == pytest.approx([0.0625, 0.1125, 0.2, 0.25, 0.2, 0.1125, 0.0625])


def test_crps_of_a_fine_grid_of_levels_is_that_of_the_normal_distribution():
    """CRPS of N(0, 1) at 0 is 2 φ(0) - 1 / √π = 0.23370."""
    from statistics import NormalDist

    levels = tuple((np.arange(400) + 0.5) / 400)
    span = spread([0.0], [[NormalDist().inv_cdf(level) for level in levels]], levels)
    assert crps.compute(span) == pytest.approx(0.23370, abs=2e-4)


def test_coverage_width_and_pit_by_hand():
    """Quantiles 1 … 7; the truth of four windows lies below all, between 2 and 3, between 4 and 5, above all."""
    span = spread([0.5, 2.5, 4.5, 9.0], [list(range(1, 8))] * 4, SEVEN)
    assert span.reliability.shares == pytest.approx([1 / 4, 0, 1 / 4, 0, 1 / 4, 0, 0, 1 / 4])
    assert coverage_50_error.compute(span) == pytest.approx(abs(1 / 4 - 0.5))  # from 3 to 5
    assert coverage_80_error.compute(span) == pytest.approx(abs(2 / 4 - 0.8))  # from 2 to 6
    assert coverage_95_error.compute(span) == pytest.approx(abs(2 / 4 - 0.95))
    assert interval_width_80.compute(span) == pytest.approx(6 - 2)
    # nominal shares 0.025, 0.075, 0.15, 0.25, 0.25, 0.15, 0.075, 0.025: too many by 0.225 + 0.1 + 0 + 0.225
    assert pit_error.compute(span) == pytest.approx(0.225 + 0.1 + 0.225)
    assert span.reliability.stored().coverage == pytest.approx({"0.5": 1 / 4, "0.8": 2 / 4, "0.95": 2 / 4})


def test_a_truth_that_equals_several_quantiles_is_shared_out_among_the_bins():
    """Held at 0 up to the median: a truth of 0 may be anything up to there, by the bins' widths 0.1, 0.4 and 0.4."""
    shares = spread([0.0], [[0, 0, 5]]).reliability.shares
    assert shares == pytest.approx([0.1 / 0.9, 0.4 / 0.9, 0.4 / 0.9, 0])


def test_chunks_of_windows_add_up(monkeypatch):
    from cellwright.kpis import _reliability

    rng = np.random.default_rng(1)
    truth, quantiles = rng.normal(0, 1, 50).tolist(), np.sort(rng.normal(0, 1, (50, 7)), axis=1).tolist()
    whole = spread(truth, quantiles, SEVEN).reliability
    monkeypatch.setattr(_reliability, "_VALUES_AT_ONCE", 7 * 13)
    parts = spread(truth, quantiles, SEVEN).reliability
    assert parts.shares == pytest.approx(whole.shares)
    assert parts.pinball == pytest.approx(whole.pinball)
    assert parts.mean == pytest.approx(whole.mean)


def test_an_unbounded_interval_has_no_calibration():
    assert coverage_95_error.compute(spread([1.0], [[-np.inf, 0, 0, 1, 2, 2, np.inf]], SEVEN)) is None


def test_levels_that_hold_no_such_interval_are_an_error():
    with pytest.raises(ValueError, match="no central interval of 50%"):
        coverage_50_error.compute(spread([1.0], [[0, 1, 2]]))


def test_busy_hours_by_hand():
    """Threshold 10. Sites: foreseen in another step of the horizon; a false alarm; missed; neither."""
    span = sites(
        forecast=[[12, 11, 9, 9], [8, 8, 9, 9]], truth=[[9, 10, 9, 9], [11, 9, 15, 10]], threshold_p90=np.full((4, 1), 10.0)
    )
    assert (span.busy.hits, span.busy.false_alarms, span.busy.misses) == (1, 1, 1)
    assert precision.compute(span) == pytest.approx(1 / 2)
    assert recall.compute(span) == pytest.approx(1 / 2)
    assert f1.compute(span) == pytest.approx(2 / 4)


def test_a_site_without_a_threshold_and_what_has_no_value():
    quiet = sites([[1, 99]], [[2, 99]], threshold_p90=np.array([[10.0], [np.nan]]))
    assert [kpi.compute(quiet) for kpi in (precision, recall, f1)] == [None, None, None]
    missed = sites([[1]], [[20]], threshold_p90=np.array([[10.0]]))
    assert [kpi.compute(missed) for kpi in (precision, recall, f1)] == [None, 0, 0]


def test_a_masked_step_is_neither_busy_nor_said_to_be():
    span = sites([[50], [1]], [[50], [1]], threshold_p90=np.array([[10.0]]))
    masked = Forecasts(span.forecast, span.truth, np.array([False, True]).reshape(1, 2, 1, 1), threshold_p90=span.threshold_p90)
    assert (masked.busy.hits, masked.busy.false_alarms, masked.busy.misses) == (0, 0, 0)


def test_fairness_by_hand():
    """Loads 10, 20, 100 and 50, off by 1, 2, 20 and 10: shares of 0.1, 0.1, 0.2 and 0.2."""
    span = sites([[11, 22, 80, 40]], [[10, 20, 100, 50]])
    assert worst_decile.compute(span) == pytest.approx(0.2 / 0.15 - 1)
    # (-3 · 0.1 - 1 · 0.1 + 1 · 0.2 + 3 · 0.2) / (4 · 0.6)
    assert gini_error.compute(span) == pytest.approx(0.4 / 2.4)


def test_all_the_error_at_one_of_ten_sites():
    truth = [[10.0] * 10]
    span = sites([[10.0] * 9 + [15.0]], truth)
    assert gini_error.compute(span) == pytest.approx(1 - 1 / 10)
    assert worst_decile.compute(span) is None  # the site in the middle has no error at all
    assert worst_decile.compute(sites(truth, truth)) == 0


def test_the_worst_decile_is_the_mean_of_a_tenth_of_the_sites():
    errors = np.arange(1.0, 21.0)  # 20 sites of load 100: the worst two err by 19 and 20, the middle by 10.5
    span = sites([(100 + errors).tolist()], [[100.0] * 20])
    assert worst_decile.compute(span) == pytest.approx(19.5 / 10.5 - 1)


def test_a_site_that_is_always_at_zero_does_not_count():
    assert gini_error.compute(sites([[5, 11, 22]], [[0, 10, 20]])) == pytest.approx(0, abs=1e-12)
    assert gini_error.compute(sites([[5]], [[0]])) is None
