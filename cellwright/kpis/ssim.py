"""Structural similarity of forecast maps and true maps, for sites on a grid.

    SSIM = (2 μx μy + C1) (2 σxy + C2) / ((μx² + μy² + C1) (σx² + σy² + C2)),   C1 = (0.01 L)²,  C2 = (0.03 L)²

Means, variances and the covariance are weighted by a Gaussian window of σ = 1.5; it is 7 × 7 where the grid allows, else 5 × 5
(the paper's 11 × 11 would cover half of a city). L, the data range, is max - min of the true values of the span that count, a
target. Every map (window, step) gives one value a window position that lies wholly on the grid; a position that touches a
masked site does not count. No value for grids smaller than 5 × 5.

Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE Trans. Image Processing 13 (2004).
"""

import numpy as np

from cellwright.kpis._contract import Forecasts

title = "SSIM"
unit = "1"
lower_is_better = False
span = "forecast"
ideal = 1.0

_SIGMA = 1.5
_MAPS_AT_ONCE = 512  # bounds the memory: five float64 maps each


def compute(evidence: Forecasts) -> float | None:
    """None without a grid of at least 5 × 5, or where no window position counts."""
    if evidence.grid is None or min(evidence.grid) < 5:
        return None
    sums = [_of_target(target, evidence.grid) for target in evidence.targets]
    total, count = sum(s for s, _ in sums), sum(n for _, n in sums)
    return total / count if count else None


def window(edge: int) -> np.ndarray:
    """(edge,) Gaussian weights of σ = 1.5 that add up to 1; the window is their outer product."""
    weights = np.exp(-np.square(np.arange(edge) - edge // 2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum())


def similarity(x: np.ndarray, y: np.ndarray, data_range: float) -> np.ndarray:
    """SSIM at each window position that lies wholly on the maps.

    `x`, `y`: (maps, rows, columns) float64. Returns (maps, rows - edge + 1, columns - edge + 1).
    """
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return np.asarray((2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))


def _of_target(target: Forecasts, grid: tuple[int, int]) -> tuple[float, int]:
    """Sum over window positions, and their number."""
    truth, forecast, mask = (a.reshape(-1, *grid) for a in (target.truth, target.forecast, target.mask))
    if not mask.any():
        return 0.0, 0
    data_range = float(truth[mask].max()) - float(truth[mask].min())
    if data_range == 0:
        return 0.0, 0
    total, count = 0.0, 0
    for start in range(0, len(truth), _MAPS_AT_ONCE):
        part = slice(start, start + _MAPS_AT_ONCE)
        good = mask[part]
        x, y = (np.where(good, maps[part], 0).astype(np.float64) for maps in (forecast, truth))
        whole = _blur(good.astype(np.float64)) > 1 - 1e-9
        total += float(similarity(x, y, data_range)[whole].sum())
        count += int(whole.sum())
    return total, count


def _blur(maps: np.ndarray) -> np.ndarray:
    """Weighted mean under the window at each position, as two matrix products: rows, then columns."""
    weights = window(7 if min(maps.shape[1:]) >= 7 else 5)
    rows, columns = (_band(size, weights) for size in maps.shape[1:])
    return np.asarray(rows @ maps @ columns.T)


def _band(size: int, weights: np.ndarray) -> np.ndarray:
    """(positions, size): row i holds the weights from i on."""
    band = np.zeros((size - len(weights) + 1, size))
    for i in range(len(band)):
        band[i, i : i + len(weights)] = weights
    return band
