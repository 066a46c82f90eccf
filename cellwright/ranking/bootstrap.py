"""Paired block bootstrap: is one model really more accurate than another, or is the difference the luck of a few hours?

Both models forecast the same windows, so the difference of their errors is taken window by window: what makes a day hard for one
makes it hard for the other and drops out. Windows that follow each other err alike, so whole blocks of them are drawn, with
replacement, round the end to the start.

Sources: Politis and Romano, "A circular block-resampling procedure for stationary data" (1992); Hall, Horowitz and Jing, "On
blocking rules for the bootstrap with dependent data", Biometrika 82 (1995).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellwright.errors import DataError
from cellwright.results import Interval

LEVEL = 0.95


@dataclass(frozen=True)
class WindowErrors:
    """Absolute errors of one model, summed within each window."""

    total: np.ndarray  # (windows,) float64: sum of |forecast - truth| over the targets that count
    count: np.ndarray  # (windows,) number of targets that count

    @classmethod
    def of(cls, forecast: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> WindowErrors:
        """From arrays (windows, horizon, sites, targets)."""
        error = np.where(mask, np.abs(forecast.astype(np.float64) - truth), 0.0)
        windows = len(error)
        return cls(error.reshape(windows, -1).sum(axis=1), mask.reshape(windows, -1).sum(axis=1))

    @property
    def mae(self) -> float:
        """Mean over all targets that count."""
        return float(self.total.sum() / self.count.sum())


def block_steps(block_h: float, cadence_s: float, windows: int) -> int:
    """Length of a block in windows, of which one starts every `cadence_s`: `block_h`, but at most half of the windows there are.

    Where only every n-th window is scored (`score.stride`), `cadence_s` is n times that of the panel.
    With one block as long as the span every resample would be the span itself, turned.
    """
    return max(1, min(round(block_h * 3600 / cadence_s), windows // 2))


def paired(this: WindowErrors, other: WindowErrors, *, name: str, block: int, samples: int, rng: np.random.Generator) -> Interval:
    """MAE of `this` minus MAE of `other`, with the 95 % percentile interval of a paired circular block bootstrap.

    `name`: key of `other`. `block`: windows a block.

    Raises:
        ValueError: the two do not count the same targets, so they are not a pair.
        DataError: no resample counts a target.
    """
    if not np.array_equal(this.count, other.count):
        raise ValueError("both models must be scored on the same windows and targets")
    difference, count = this.total - other.total, this.count.astype(np.float64)
    means = _resampled(difference, block, samples, rng.spawn(1)[0], count)
    if not len(means):
        raise DataError(
            f"of {int(count.sum())} measured targets in {len(count)} windows none is in a resample; choose another split, or raise "
            "score.bootstrap"
        )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(difference.sum() / count.sum())
    return Interval(other=name, difference=mean, low=float(low), high=float(high), block_steps=block, samples=samples)


def _resampled(difference: np.ndarray, block: int, samples: int, rng: np.random.Generator, count: np.ndarray) -> np.ndarray:
    """Mean difference of each resample that counts a target. Sums of blocks come from running sums: no resample is written out."""
    windows = len(difference)
    whole, rest = divmod(windows, block)
    starts = rng.integers(0, windows, (samples, whole + 1))
    sums = [
        _block_sums(a, block)[starts[:, :whole]].sum(axis=1) + _block_sums(a, rest)[starts[:, -1]] for a in (difference, count)
    ]
    counted = sums[1] > 0
    return np.asarray(sums[0][counted] / sums[1][counted])


def _block_sums(values: np.ndarray, length: int) -> np.ndarray:
    """(windows,) sum of `length` values from each start, round the end."""
    running = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:length]]))])
    return np.asarray(running[length : length + len(values)] - running[: len(values)])
