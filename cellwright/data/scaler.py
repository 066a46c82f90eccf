"""Scalers: per site and channel, fitted on a candidate's training rows alone.

standard   (x - mean) / standard deviation
robust     (x - median) / (interquartile range / 1.349), which equals the standard deviation of a normal distribution
log        standard of log(1 + x); wants values of at least 0
none       x
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cellwright.data import channels
from cellwright.data.channels import VALID
from cellwright.errors import DataError
from cellwright.panel import Panel
from models._contract import Problem

Kind = Literal["standard", "robust", "log", "none"]

_SITES_AT_ONCE = 1024  # bounds the float64 copies
_NORMAL_IQR = 1.349  # interquartile range of the standard normal distribution


@dataclass(frozen=True)
class Scaler:
    """Centre and scale of each site and channel: (sites, channels) float32, channels as in `Problem.features`."""

    kind: Kind
    clip: float | None  # scaled inputs are held within ± this
    sites: tuple[str, ...]
    center: np.ndarray
    scale: np.ndarray


def fit_scaler(panel: Panel, problem: Problem, kind: Kind, rows: tuple[int, int], clip: float | None = None) -> Scaler:
    """Fit on the really measured values of rows [start, stop); nothing outside of them is read.

    A lag channel is scaled as its target, `valid` not at all; a series joined by time, which may fall below 0, as `standard` where
    the kind is `log`. A site without a measured value in these rows takes the mean
    centre and scale of the others; a constant channel takes scale 1.

    Raises:
        DataError: kind `log` and a value below 0, or a feature without a single measured value.
    """
    sites = len(panel.schema.sites)
    center, scale = np.zeros((sites, len(problem.features)), np.float32), np.ones((sites, len(problem.features)), np.float32)
    fitted: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for c, channel in enumerate(problem.features):
        feature = channel.rpartition("@")[0] or channel
        if channel == VALID or kind == "none":
            continue
        if feature not in fitted:
            fitted[feature] = _fit_feature(panel, problem, feature, kind_of(problem, feature, kind), rows)
        center[:, c], scale[:, c] = fitted[feature]
    return Scaler(kind, clip, panel.schema.sites, center, scale)


def kind_of(problem: Problem, feature: str, kind: Kind) -> Kind:
    """How one channel is scaled."""
    return "standard" if kind == "log" and channels.joined(problem, feature) else kind


def _fit_feature(
    panel: Panel, problem: Problem, feature: str, kind: Kind, rows: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    parts = [_fit_sites(v, feature, kind) for v in _measured(panel, problem, feature, rows)]
    center, scale = (np.concatenate(column) for column in zip(*parts, strict=True))
    seen = np.isfinite(center)
    if not seen.any():
        raise DataError(
            f"feature '{feature}' of '{panel.schema.dataset}' has no measured value in rows {rows[0]} to {rows[1]}, on which "
            "it is scaled; drop it from problem.features or bring other rows"
        )
    return np.where(seen, center, center[seen].mean()), np.where(seen, scale, scale[seen].mean())


def _measured(panel: Panel, problem: Problem, feature: str, rows: tuple[int, int]) -> Iterator[np.ndarray]:
    """(rows, some sites) float64 at a time, NaN where a value does not count."""
    values, flags = (part(panel, problem, feature)[slice(*rows)] for part in (channels.values, channels.good))
    for first in range(0, values.shape[1], _SITES_AT_ONCE):
        some = slice(first, first + _SITES_AT_ONCE)
        yield np.where(flags[:, some], values[:, some].astype(np.float64), np.nan)


def _fit_sites(values: np.ndarray, feature: str, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale of each column; NaN where it holds nothing."""
    if kind == "log":
        values = _log(values, feature)
    counts = (~np.isnan(values)).sum(axis=0)
    center, scale = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    some = values[:, counts > 0]
    if some.shape[1]:
        center[counts > 0], scale[counts > 0] = _robust(some) if kind == "robust" else _standard(some)
    return center, np.where(scale > 1e-6 * (1 + np.abs(center)), scale, np.where(np.isnan(center), np.nan, 1.0))


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.nanmean(values, axis=0), np.nanstd(values, axis=0)


def _robust(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A channel that is constant for half of the time has no interquartile range: the standard deviation stands in."""
    quartiles = np.nanquantile if np.isnan(values).any() else np.quantile
    low, middle, high = quartiles(values, (0.25, 0.5, 0.75), axis=0)
    spread = (high - low) / _NORMAL_IQR
    return middle, np.where(spread > 0, spread, np.nanstd(values, axis=0))


def _log(values: np.ndarray, feature: str) -> np.ndarray:
    low = np.nanmin(values, initial=0.0)
    if low < 0:
        raise DataError(
            f"scaler 'log' wants values of at least 0; feature '{feature}' goes down to {low:g}; use 'standard' or 'robust'"
        )
    return np.log1p(values)
