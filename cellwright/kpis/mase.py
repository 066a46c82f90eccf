"""Mean absolute scaled error: mean of |forecast - truth| / naive_mae(site, target).

`naive_mae` is the in-sample MAE, over the training rows, of the seasonal naive forecast (same time yesterday); where the training
rows are no longer than a day, of the one-step naive forecast (the value before), and the score's sources say so. A site whose
naive error is 0 or unknown does not count. Below 1: better than the naive forecast did on the training rows.

Source: Hyndman and Koehler, "Another look at measures of forecast accuracy", Int. J. Forecasting 22 (2006).
"""

import numpy as np

from cellwright.kpis._contract import Forecasts

title = "MASE"
unit = "1"
lower_is_better = True
span = "forecast"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None where no target counts, or no naive error is known."""
    if evidence.naive_mae is None:
        return None
    scale = np.broadcast_to(evidence.naive_mae.astype(np.float64), evidence.truth.shape)[evidence.mask]
    known = np.isfinite(scale) & (scale > 0)
    return float((np.abs(evidence.error[known]) / scale[known]).mean()) if known.any() else None


def naive_mae(values: np.ndarray, good: np.ndarray, season: int) -> tuple[np.ndarray, bool]:
    """In-sample error of the naive forecast, and whether it is the seasonal one.

    `values`, `good`: (training rows, sites, targets), raw units and whether really measured; `season` in rows.
    Returns (sites, targets) float64, NaN where no pair of rows was measured.
    """
    seasonal = len(values) > season
    lag = season if seasonal else 1
    difference = np.abs(values[lag:].astype(np.float64) - values[:-lag])
    pairs = good[lag:] & good[:-lag]
    count = pairs.sum(axis=0)
    total = np.where(pairs, difference, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0), seasonal
