"""Scalers: worked-out numbers, and that nothing after the training rows can change them."""

import numpy as np
import pytest

from cellwright.data.scaler import fit_scaler
from cellwright.errors import DataError
from cellwright.panel import Flag

VALUES = np.array([[1, 10], [2, 10], [3, 10], [4, 10], [100, 50]], np.float32)


def test_standard_is_the_mean_and_deviation_of_each_site(make_panel, make_problem):
    scaler = fit_scaler(make_panel(VALUES), make_problem(), "standard", (0, 4))
    assert scaler.center[:, 0] == pytest.approx([2.5, 10])
    assert scaler.scale[:, 0] == pytest.approx([np.sqrt(1.25), 1.0])  # a constant site keeps scale 1


def test_robust_is_the_median_and_the_interquartile_range(make_panel, make_problem):
    scaler = fit_scaler(make_panel(VALUES), make_problem(), "robust", (0, 4))
    assert scaler.center[0, 0] == pytest.approx(2.5)
    assert scaler.scale[0, 0] == pytest.approx(1.5 / 1.349)


def test_log_is_standard_of_log1p_and_refuses_negative_values(make_panel, make_problem):
    scaler = fit_scaler(make_panel(VALUES), make_problem(), "log", (0, 4))
    assert scaler.center[0, 0] == pytest.approx(np.log1p([1, 2, 3, 4]).mean())
    with pytest.raises(DataError, match=r"'traffic' goes down to -3; use 'standard' or 'robust'"):
        fit_scaler(make_panel(VALUES - 4), make_problem(), "log", (0, 4))


def test_only_measured_values_count(make_panel, make_problem):
    flags = np.zeros(VALUES.shape, np.uint8)
    flags[3, 0] = Flag.OUTAGE
    scaler = fit_scaler(make_panel(VALUES, flags={"traffic": flags}), make_problem(), "standard", (0, 4))
    assert scaler.center[0, 0] == pytest.approx(2.0)


def test_a_site_without_a_value_takes_the_mean_of_the_others(make_panel, make_problem):
    values = np.array([[1, np.nan, 5], [3, np.nan, 9]], np.float32)
    scaler = fit_scaler(make_panel(values), make_problem(), "standard", (0, 2))
    assert scaler.center[:, 0] == pytest.approx([2, 4.5, 7])
    assert scaler.scale[:, 0] == pytest.approx([1, 1.5, 2])
    with pytest.raises(DataError, match="no measured value in rows 0 to 1"):
        fit_scaler(make_panel(values * np.nan), make_problem(), "standard", (0, 1))


def test_a_lag_is_scaled_as_its_target_and_valid_not_at_all(make_panel, make_problem):
    problem = make_problem(features=("traffic", "traffic@9", "valid"), lags=(9,))
    scaler = fit_scaler(make_panel(VALUES), problem, "standard", (0, 4))
    assert (scaler.center[:, 1] == scaler.center[:, 0]).all()
    assert scaler.center[:, 2].tolist() == [0, 0]
    assert scaler.scale[:, 2].tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["standard", "robust", "log", "none"])
def test_later_rows_cannot_change_a_scaler(make_panel, make_problem, kind):
    rng = np.random.default_rng(3)
    values = rng.gamma(2, 30, (60, 3)).astype(np.float32)
    changed = values.copy()
    changed[40:] = rng.gamma(9, 900, (20, 3))
    changed[50:, 1] = np.nan
    before, after = (fit_scaler(make_panel(v), make_problem(), kind, (0, 40)) for v in (values, changed))
    assert (before.center == after.center).all()
    assert (before.scale == after.scale).all()
