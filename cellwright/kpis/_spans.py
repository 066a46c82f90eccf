"""Truth of a span, and the forecasts that are held against it.

Legend: W windows, F horizon, S sites, T targets.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellwright.conformal import LEVELS, Conformal, Predicted, Usual, calibrate, cross_fitted
from cellwright.files import write_bytes
from cellwright.kpis._contract import Forecasts
from cellwright.kpis.mase import naive_mae
from cellwright.panel import Panel

SPANS = ("validation", "test")
_SITES_AT_ONCE = 500


@dataclass(frozen=True)
class Truth:
    """What was measured in the targets of a span's windows."""

    values: np.ndarray  # (W, F, S, T) float32, raw units
    mask: np.ndarray  # (W, F, S, T) bool: really measured
    origins: np.ndarray  # (W,) int64, row of each window's first target

    @classmethod
    def of(cls, panel: Panel, targets: tuple[str, ...], origins: np.ndarray, horizon: int) -> Truth:
        """Gather the targets of the windows that start at `origins`."""
        rows = origins[:, None] + np.arange(horizon)
        values = np.stack([panel.values(target)[rows] for target in targets], axis=-1)
        mask = np.stack([panel.good(target)[rows] for target in targets], axis=-1)
        return cls(values, mask, origins)


@dataclass(frozen=True)
class Scale:
    """What the training rows say of each site: the yardsticks of MASE, of busy hours and of intervals. (S, T) each."""

    naive_mae: np.ndarray  # in-sample error of the naive forecast, NaN where unknown
    seasonal: bool  # else one step
    usual: Usual
    p90: np.ndarray  # 90th percentile of the load, NaN where unknown

    @classmethod
    def of(cls, panel: Panel, targets: tuple[str, ...], start: int, stop: int, season: int) -> Scale:
        """From the training rows [start, stop); some hundred sites at a time, for the memory's sake."""
        parts = []
        for first in range(0, len(panel.schema.sites), _SITES_AT_ONCE):
            sites = slice(first, first + _SITES_AT_ONCE)
            values = np.stack([panel.values(target)[start:stop, sites] for target in targets], axis=-1)
            good = np.stack([panel.good(target)[start:stop, sites] for target in targets], axis=-1)
            parts.append((naive_mae(values, good, season), naive_mae(values, good, len(values))[0], *_load(values, good)))
        naive, step, load, p90 = (np.concatenate(table) for table in zip(*((n[0], s, m, p) for n, s, m, p in parts), strict=True))
        return cls(naive, parts[0][0][1], Usual(_above_zero(step), np.nan_to_num(load)), p90)


def _load(values: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 90th percentile (sites, targets) of (rows, sites, targets); NaN where nothing was measured."""
    known = np.where(good, values, np.float32(np.nan))
    some = good.any(axis=0)
    mean, p90 = np.full(some.shape, np.nan), np.full(some.shape, np.nan)
    columns = known[:, some]
    percentile = np.nanpercentile if np.isnan(columns).any() else np.percentile
    mean[some], p90[some] = np.nanmean(columns, axis=0, dtype=np.float64), percentile(columns, 90, axis=0)
    return mean, p90


def _above_zero(step: np.ndarray) -> np.ndarray:
    """A site that never changes, or of which no two rows are known, takes the middle one of the others; 1 where none changes."""
    known = step > 0
    return np.stack([np.where(k, s, np.median(s[k]) if k.any() else 1.0) for s, k in zip(step.T, known.T, strict=True)], axis=-1)


def evidence(
    forecast: np.ndarray, truth: Truth, scale: Scale, grid: tuple[int, int] | None, quantiles: Predicted | None = None
) -> Forecasts:
    """What the forecast KPIs see."""
    levels = LEVELS if quantiles is not None else ()
    return Forecasts(
        forecast, truth.values, truth.mask, scale.naive_mae, grid, quantiles=quantiles, levels=levels, threshold_p90=scale.p90
    )


def calibrated(
    heads: tuple[float, ...],
    answers: Mapping[str, np.ndarray],
    truth: Mapping[str, Truth],
    scale: Scale,
    limits: tuple[np.ndarray, np.ndarray],
) -> tuple[dict[str, Predicted], Conformal]:
    """Quantiles of each span, and what makes them: calibrated on the validation span, which itself is cross-fitted.

    `heads`: levels of the network's own quantiles; `answers`: (W, F, S, T, H or 1) a span.
    """
    told, true = answers["validation"], truth["validation"]
    conformal = calibrate(heads, told, true.values, true.mask, scale.usual, limits)
    own = cross_fitted(heads, told, true.values, true.mask, true.origins, scale.usual, limits)
    others = {span: Predicted(found, ((len(found), conformal),)) for span, found in answers.items() if span != "validation"}
    return {"validation": own, **others}, conformal


def mean_error_by(axis: int, found: Forecasts) -> list[float | None]:
    """MAE at each index of an axis (1: step, 2: site); None where no target counts."""
    error = np.where(found.mask, np.abs(found.forecast.astype(np.float64) - found.truth), 0.0)
    others = tuple(a for a in range(error.ndim) if a != axis)
    total, count = error.sum(axis=others), found.mask.sum(axis=others)
    return [float(t / n) if n else None for t, n in zip(total, count, strict=True)]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz whole; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]  # its stub takes the arrays for its own flags
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
