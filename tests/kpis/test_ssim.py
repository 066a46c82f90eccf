"""SSIM against worked examples and against the formula written out position by position."""

import numpy as np
import pytest

from cellwright.kpis import ssim
from cellwright.kpis._contract import Forecasts


def span(forecast: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> Forecasts:
    """`forecast`, `truth`, `mask`: (maps, rows, columns)."""
    grid = truth.shape[1:]
    shape = (len(truth), 1, grid[0] * grid[1], 1)
    kept = np.ones(truth.shape, bool) if mask is None else mask
    return Forecasts(forecast.reshape(shape), truth.reshape(shape), kept.reshape(shape), grid=grid)


def position_by_position(x: np.ndarray, y: np.ndarray, data_range: float, edge: int) -> float:
    g = np.exp(-((np.arange(edge) - edge // 2) ** 2) / (2 * 1.5**2))
    w = np.outer(g, g) / np.outer(g, g).sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for i in range(x.shape[0] - edge + 1):
        for j in range(x.shape[1] - edge + 1):
            a, b = x[i : i + edge, j : j + edge], y[i : i + edge, j : j + edge]
            mean_a, mean_b = (w * a).sum(), (w * b).sum()
            var_a, var_b = (w * (a - mean_a) ** 2).sum(), (w * (b - mean_b) ** 2).sum()
            cov = (w * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
            values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(values))


def test_flat_maps_by_hand():
    """Two flat maps differ in luminance only: (2 · 100 · 50 + C1) / (100² + 50² + C1) with L = 50, C1 = 0.25."""
    x, y = np.full((1, 5, 5), 50.0), np.full((1, 5, 5), 100.0)
    assert ssim.similarity(x, y, data_range=50.0).item() == pytest.approx((2 * 100 * 50 + 0.25) / (100**2 + 50**2 + 0.25))


@pytest.mark.parametrize(("size", "edge"), [((5, 5), 5), ((6, 9), 5), ((7, 7), 7), ((20, 20), 7)])
def test_it_is_the_formula_at_every_window_position_and_the_window_adapts(size, edge):
    rng = np.random.default_rng(11)
    truth = rng.gamma(2.0, 40.0, (1, *size))
    forecast = truth + rng.normal(0, 15, truth.shape)
    data_range = truth.max() - truth.min()
    expected = position_by_position(forecast[0], truth[0], data_range, edge)
    assert ssim.compute(span(forecast, truth)) == pytest.approx(expected, rel=1e-10)


def test_window_positions_that_touch_a_masked_site_do_not_count():
    rng = np.random.default_rng(12)
    truth = rng.gamma(2.0, 40.0, (1, 8, 8))
    forecast = truth + rng.normal(0, 15, truth.shape)
    mask = np.ones(truth.shape, bool)
    mask[0, 0, 0] = False  # of the four positions of a 7 × 7 window on 8 × 8, one touches the corner
    data_range = truth[mask].max() - truth[mask].min()
    kept = ssim.similarity(forecast, truth, data_range)[0].reshape(-1)[1:]
    assert ssim.compute(span(forecast, truth, mask)) == pytest.approx(kept.mean(), rel=1e-10)


def test_an_opposite_pattern_is_dissimilar():
    checks = np.indices((7, 7)).sum(axis=0) % 2 * 2.0 - 1
    assert ssim.compute(span(-checks[None], checks[None])) < -0.9


def test_it_is_absent_without_a_grid_and_on_grids_that_are_too_small():
    maps = np.random.default_rng(1).random((2, 4, 8))
    assert ssim.compute(span(maps, maps)) is None
    flat = span(np.ones((1, 5, 5)), np.ones((1, 5, 5)))
    assert ssim.compute(flat) is None  # no range
    assert ssim.compute(Forecasts(flat.forecast, flat.truth, flat.mask, grid=None)) is None
