"""The flags of a panel's values: missing, filled, outage, outlier; worked out a few sites at a time.

Appending days never changes the flags and fills of earlier rows, with two exceptions: the first week's, which is judged by
itself, until it is complete; and the last max(max_gap, outage_min - 1) rows, where a gap or a run of zeros was still open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellwright.data.gaps import fill_short, run_lengths
from cellwright.data.usual import usual, weeks
from cellwright.panel import Flag
from cellwright.params import Normalise

SITES_AT_ONCE = 256


@dataclass(frozen=True)
class Grid:
    """What the flags need to know of time."""

    edges: tuple[int, ...]  # first row of every segment, and the end
    hours: np.ndarray  # (rows,) hour of day, 0-23
    cadence_s: float


def flag(values: np.ndarray, grid: Grid, rules: Normalise, *, zero_is_outage: bool) -> np.ndarray:
    """Flags (rows, sites) uint8 of one feature's raw values, whose short gaps are filled in place."""
    flags = np.empty(values.shape, np.uint8)
    for start in range(0, values.shape[1], SITES_AT_ONCE):
        some = slice(start, start + SITES_AT_ONCE)
        part = np.ascontiguousarray(values[:, some])
        flags[:, some] = _of_sites(part, grid, rules, zero_is_outage)
        values[:, some] = part
    return flags


def _of_sites(part: np.ndarray, grid: Grid, rules: Normalise, zero_is_outage: bool) -> np.ndarray:
    outlier, odd_zero = _against_usual(part, grid, rules.outlier_z)
    flags = np.where(np.isnan(part), np.uint8(Flag.MISSING), np.uint8(0))
    flags |= np.where(outlier, np.uint8(Flag.OUTLIER), np.uint8(0))
    if zero_is_outage and odd_zero.any():
        outage = run_lengths(odd_zero, grid.edges) >= rules.outage_min
        flags[outage] = Flag.OUTAGE  # an outage explains its zeros: they are not outliers as well
    filled = fill_short(part, grid.edges, rules.max_gap)
    flags[filled] |= np.uint8(Flag.FILLED)
    return flags


def _against_usual(part: np.ndarray, grid: Grid, outlier_z: float) -> tuple[np.ndarray, np.ndarray]:
    """(rows, sites) bool each: far from the usual value; zero where a zero is not usual.

    A spread of 0 (the usual value is 0, always) makes nothing an outlier: there is no scale to measure by. A zero is odd
    where three quarters of the values at that hour are above zero.
    """
    outlier, odd_zero = np.zeros(part.shape, bool), np.zeros(part.shape, bool)
    for week, past in weeks(len(part), grid.cadence_s):
        seen = usual(part[past], grid.hours[past])
        hours, values = grid.hours[week], part[week]
        spread = seen.spread[hours]
        with np.errstate(invalid="ignore"):  # comparing NaN is False, as it should be
            outlier[week] = (np.abs(values - seen.median[hours]) > outlier_z * spread) & (spread > 0)
            odd_zero[week] = (values == 0) & (seen.quartile[hours] > 0)
    return outlier, odd_zero


def hours_of_day(times_ms: np.ndarray, zone: str, *, relative: bool) -> np.ndarray:
    """(rows,) int8 hour of day, local to the data set; on a relative clock the hours since the start, modulo 24."""
    if relative or zone == "UTC":
        return ((times_ms // 3_600_000) % 24).astype(np.int8)
    import polars as pl

    local = pl.Series(times_ms).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    return local.dt.hour().to_numpy()
