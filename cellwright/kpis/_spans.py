"""Truth of a span, and the forecasts that are held against it.

Legend: W windows, F horizon, S sites, T targets.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    """In-sample error of the naive forecast, for MASE."""

    naive_mae: np.ndarray  # (S, T)
    seasonal: bool  # else one step

    @classmethod
    def of(cls, panel: Panel, targets: tuple[str, ...], start: int, stop: int, season: int) -> Scale:
        """From the training rows [start, stop); some hundred sites at a time, for the memory's sake."""
        parts = []
        for first in range(0, len(panel.schema.sites), _SITES_AT_ONCE):
            sites = slice(first, first + _SITES_AT_ONCE)
            values = np.stack([panel.values(target)[start:stop, sites] for target in targets], axis=-1)
            good = np.stack([panel.good(target)[start:stop, sites] for target in targets], axis=-1)
            parts.append(naive_mae(values, good, season))
        return cls(np.concatenate([errors for errors, _ in parts]), parts[0][1])


def evidence(forecast: np.ndarray, truth: Truth, scale: Scale, grid: tuple[int, int] | None) -> Forecasts:
    """What the accuracy KPIs see."""
    return Forecasts(forecast, truth.values, truth.mask, scale.naive_mae, grid)


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
