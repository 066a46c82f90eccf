"""Busy hours: whether a site's load goes above its usual peak within the horizon.

A window counts as busy where the largest of its true values that count exceeds the site's threshold, and is said to be busy where
the largest of the forecasts of the same steps does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Confusion:
    """Counts over windows, sites and targets."""

    hits: int  # busy and said so
    false_alarms: int  # said busy, was not
    misses: int  # busy, not said

    @property
    def precision(self) -> float | None:
        """hits / (hits + false alarms); None where none was said to be busy."""
        return self.hits / said if (said := self.hits + self.false_alarms) else None

    @property
    def recall(self) -> float | None:
        """hits / (hits + misses); None where none was busy."""
        return self.hits / busy if (busy := self.hits + self.misses) else None

    @property
    def f1(self) -> float | None:
        """2 hits / (2 hits + false alarms + misses), the harmonic mean of the two; None where none was, or was said to be."""
        total = 2 * self.hits + self.false_alarms + self.misses
        return 2 * self.hits / total if total else None


def confusion(forecast: np.ndarray, truth: np.ndarray, mask: np.ndarray, threshold: np.ndarray) -> Confusion:
    """Count busy windows. The first three (W, F, S, T), `threshold` (S, T); a site whose threshold is NaN does not count."""
    counts = mask.any(axis=1) & np.isfinite(threshold)
    said, busy = (_largest(values, mask) > threshold for values in (forecast, truth))
    return Confusion(*(int((counts & some).sum()) for some in (said & busy, said & ~busy, ~said & busy)))


def _largest(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(W, S, T) over the steps that count."""
    return np.asarray(np.where(mask, values, -np.inf).max(axis=1))
