"""Accuracy KPIs on tiny arrays worked out by hand."""

import numpy as np
import pytest

from cellwright.kpis import mae, mase, r2, rmse, smape
from cellwright.kpis._contract import Forecasts


def line(forecast: list[float], truth: list[float], mask: list[bool] | None = None, **more) -> Forecasts:
    """One window and site, one target; a step a value."""
    shape = (1, len(truth), 1, 1)
    kept = np.ones(shape, bool) if mask is None else np.reshape(mask, shape)
    return Forecasts(np.reshape(forecast, shape), np.reshape(truth, shape), kept, **more)


def test_mae_rmse_r2_and_smape_by_hand():
    span = line([2, 4, 6], [1, 4, 9])  # errors 1, 0, -3
    assert mae.compute(span) == pytest.approx(4 / 3)
    assert rmse.compute(span) == pytest.approx((10 / 3) ** 0.5)
    # mean truth 14/3: squares (11/3)² + (2/3)² + (13/3)² = 294/9
    assert r2.compute(span) == pytest.approx(1 - 10 / (294 / 9))
    assert smape.compute(span) == pytest.approx(200 * (1 / 3 + 0 + 3 / 15) / 3)


def test_smape_of_two_zeros_is_zero():
    assert smape.compute(line([0, 1], [0, 3])) == pytest.approx(200 * (0 + 2 / 4) / 2)


def test_r2_of_a_constant_truth_is_absent():
    assert r2.compute(line([1, 2], [5, 5])) is None


def test_r2_averages_targets_that_have_units_of_their_own():
    truth = np.array([[0.0, 0.0], [2.0, 2000.0]]).reshape(1, 2, 1, 2)
    forecast = np.array([[0.0, 1000.0], [2.0, 1000.0]]).reshape(1, 2, 1, 2)  # perfect, and the mean
    assert r2.compute(Forecasts(forecast, truth, np.ones(truth.shape, bool))) == pytest.approx((1 + 0) / 2)


def test_mase_scales_each_site_by_its_own_naive_error():
    truth = np.zeros((1, 1, 3, 1))
    forecast = np.array([4.0, 30.0, 7.0]).reshape(1, 1, 3, 1)
    naive = np.array([[2.0], [10.0], [np.nan]])  # 4/2 and 30/10; the third site is not known
    assert mase.compute(Forecasts(forecast, truth, np.ones(truth.shape, bool), naive_mae=naive)) == pytest.approx(2.5)


def test_naive_error_is_seasonal_where_the_rows_allow_and_skips_what_was_not_measured():
    values = np.array([1.0, 5.0, 2.0, 9.0]).reshape(4, 1, 1)
    good = np.ones(values.shape, bool)
    error, seasonal = mase.naive_mae(values, good, season=2)
    assert (error.item(), seasonal) == (pytest.approx((1 + 4) / 2), True)
    error, seasonal = mase.naive_mae(values, good, season=4)
    assert (error.item(), seasonal) == (pytest.approx((4 + 3 + 7) / 3), False)
    good[3] = False
    assert mase.naive_mae(values, good, season=2)[0].item() == pytest.approx(1)
    assert np.isnan(mase.naive_mae(values, ~good & False, season=2)[0]).all()
