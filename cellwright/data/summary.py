"""A panel in small frames: a row a site, a row a day. What expectations are held against, so that they stay fast."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from cellwright.data.accepted import FeatureSummary, Version
from cellwright.panel import Flag, Panel, PanelSchema

_SITES_AT_ONCE = 256
_QUANTILE_VALUES = 2_000_000  # at most; beyond that every n-th row
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class SiteSummary:
    """One feature; arrays are (sites,), NaN where a site has no measured value."""

    minimum: np.ndarray
    maximum: np.ndarray
    missing_share: np.ndarray  # intervals in which nothing was measured, filled ones included


@dataclass(frozen=True)
class DaySummary:
    """The time axis; arrays are (days,)."""

    name: list[str]
    rows: np.ndarray
    expected: np.ndarray


def by_site(panel: Panel, feature: str) -> SiteSummary:
    """Extremes and missing share of a feature a site."""
    values, flags = panel.values(feature), panel.flags(feature)
    sites = values.shape[1]
    found = SiteSummary(*(np.full(sites, np.nan) for _ in range(3)))
    for start in range(0, sites, _SITES_AT_ONCE):
        some = slice(start, start + _SITES_AT_ONCE)
        part, missing = values[:, some], (flags[:, some] & int(Flag.MISSING)) != 0
        unusable = missing | np.isnan(part)
        low = np.where(unusable, np.inf, part).min(axis=0, initial=np.inf)
        high = np.where(unusable, -np.inf, part).max(axis=0, initial=-np.inf)
        found.minimum[some] = np.where(np.isinf(low), np.nan, low)
        found.maximum[some] = np.where(np.isinf(high), np.nan, high)
        found.missing_share[some] = unusable.mean(axis=0) if len(part) else 1.0
    return found


def silent_share(panel: Panel) -> float:
    """Share of rows in which no site measured any feature."""
    silent = np.ones(panel.schema.rows, dtype=bool)
    for feature in panel.schema.features:
        silent &= ((panel.flags(feature.name) & int(Flag.MISSING)) != 0).all(axis=1)
    return float(silent.mean()) if len(silent) else 1.0


def by_day(panel: Panel) -> DaySummary:
    """Rows of each day against those its cadence promises; the first and the last day may be partial."""
    schema = panel.schema
    day = panel.times_ms() // 86_400_000
    number, rows = np.unique(day, return_counts=True)
    expected = np.full(len(number), round(86_400 / schema.cadence_s) if schema.cadence_s < 86_400 else 1)
    for edge in {0, len(number) - 1} if len(number) else set():
        expected[edge] = min(expected[edge], rows[edge])
    return DaySummary([_day(schema, int(n)) for n in number], rows, expected)


def summarise(panel: Panel) -> Version:
    """What is remembered of a panel once it is accepted."""
    features = {f.name: _quantiles(panel, f.name, f.unit) for f in panel.schema.features}
    about = {name: summary.model_dump() for name, summary in features.items()}
    axis = [panel.schema.start_ms, panel.schema.rows, panel.schema.cadence_s, list(panel.schema.sites)]
    digest = hashlib.sha256(json.dumps([about, axis], sort_keys=True).encode()).hexdigest()
    return Version(fingerprint=digest, rows=panel.schema.rows, last=last_row(panel), features=features)


def first_row(panel: Panel) -> str:
    """When the first interval starts: ISO 8601, or the row on a relative clock."""
    return _when(panel, 0)


def last_row(panel: Panel) -> str:
    """When the last interval starts."""
    return _when(panel, panel.schema.rows - 1)


def _when(panel: Panel, row: int) -> str:
    if panel.schema.clock == "relative" or not panel.schema.rows:
        return f"row {row}"
    return datetime.fromtimestamp(int(panel.times_ms()[row]) / 1000, UTC).isoformat(timespec="seconds")


def _quantiles(panel: Panel, feature: str, unit: str) -> FeatureSummary:
    values, good = panel.values(feature), panel.good(feature)
    stride = max(1, values.size // _QUANTILE_VALUES)
    kept = values[::stride][good[::stride]].astype(np.float64)
    found = [None] * 5 if not len(kept) else [float(f"{q:.6g}") for q in np.quantile(kept, _QUANTILES)]
    return FeatureSummary(unit=unit, q05=found[0], q25=found[1], q50=found[2], q75=found[3], q95=found[4])


def _day(schema: PanelSchema, number: int) -> str:
    if schema.clock == "relative":
        return f"day {number}"
    return f"{datetime.fromtimestamp(number * 86_400, UTC):%Y-%m-%d}"
