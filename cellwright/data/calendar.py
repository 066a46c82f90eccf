"""Calendar features of time stamps: what is known of the future."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np

NAMES = ("hour", "hour_sin", "hour_cos", "week_sin", "week_cos", "weekend")

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_WEEK_MS = 7 * _DAY_MS
_MONDAY_MS = 4 * _DAY_MS  # 1970-01-05, the first Monday after the epoch


def calendar(times_ms: np.ndarray, timezone: str, clock: Literal["utc", "relative"]) -> np.ndarray:
    """(rows, 6) float32 of NAMES for each time stamp.

    `hour` is the hour of day / 24 in [0, 1), local to `timezone`, daylight saving included; the week starts on Monday. On a
    `relative` clock hours and weeks count from the first row (their phase is unknown, but it is a phase) and `weekend` is 0.

    Raises:
        ZoneInfoNotFoundError: no such time zone.
    """
    times = np.asarray(times_ms, dtype=np.int64)
    local = local_ms(times, timezone) if clock == "utc" else times
    day = (local % _DAY_MS) / _DAY_MS
    week = ((local - (_MONDAY_MS if clock == "utc" else 0)) % _WEEK_MS) / _WEEK_MS
    weekend = (week >= 5 / 7) if clock == "utc" else np.zeros_like(week)
    turn_d, turn_w = 2 * np.pi * day, 2 * np.pi * week
    columns = (day, np.sin(turn_d), np.cos(turn_d), np.sin(turn_w), np.cos(turn_w), weekend)
    return np.stack(columns, axis=1).astype(np.float32)


def known_features(
    times_ms: np.ndarray, names: tuple[str, ...], timezone: str, clock: Literal["utc", "relative"], holidays: str = ""
) -> np.ndarray:
    """(rows, names) float32: columns of `calendar`, and `holiday` for the country or region `holidays`.

    Raises:
        UnknownName: no such country or region.
    """
    from cellwright.data.holidays import HOLIDAY, marks

    found = calendar(times_ms, timezone, clock)
    if HOLIDAY in names:
        found = np.concatenate((found, marks(times_ms, timezone, holidays)[:, None]), axis=1)
    return found[:, [(*NAMES, HOLIDAY).index(name) for name in names]]


def local_ms(times_ms: np.ndarray, timezone: str) -> np.ndarray:
    """Epoch milliseconds as wall-clock milliseconds of the time zone."""
    times = np.asarray(times_ms, dtype=np.int64)
    return times + _offsets_ms(times, timezone)


def _offsets_ms(times_ms: np.ndarray, timezone: str) -> np.ndarray:
    """Local time minus UTC. Days on which it does not change are looked up once; clocks change on a quarter hour."""
    zone = ZoneInfo(timezone)
    days, index = np.unique(times_ms // _DAY_MS, return_inverse=True)
    at_start = np.array([_offset_ms(int(day) * _DAY_MS, zone) for day in days])
    at_end = np.array([_offset_ms((int(day) + 1) * _DAY_MS, zone) for day in days])
    offsets = at_start[index]
    changing = np.flatnonzero((at_start != at_end)[index])
    quarters, where = np.unique(times_ms[changing] // (_HOUR_MS // 4), return_inverse=True)
    exact = np.array([_offset_ms(int(q) * (_HOUR_MS // 4), zone) for q in quarters], dtype=np.int64)
    offsets[changing] = exact[where]
    return offsets


def _offset_ms(time_ms: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(time_ms / 1000, UTC).astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds() * 1000)
