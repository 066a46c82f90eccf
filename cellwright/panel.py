"""Panel: time × site × feature, regular in time; the one form that telemetry has in this house.

On disk a panel is a folder of Arrow IPC files, one a day (`2013-11-01.arrow`, or `day-00003.arrow` on a relative clock): a panel
that grows adds files, and DVC stores only what is new. Each file holds a row a time step and, for every feature F, two
columns of fixed-size lists over the sites: `F` (float32, raw units, NaN where masked) and `F.flags` (uint8). They are
uncompressed, so a day is memory-mapped without a copy. The schema is in the files' metadata (see `cellwright.data.dayfiles`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import IntFlag
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from cellwright.data import dayfiles
from cellwright.errors import FormatError, UnknownName
from cellwright.files import whole_folder


class Flag(IntFlag):
    """What is known about one value. A value whose `BAD` bits are set is never trained on or scored as a target."""

    OK = 0
    MISSING = 1  # nothing was measured (the value is NaN, or filled if FILLED is set)
    FILLED = 2  # a gap of at most max_gap intervals, filled causally with the last value
    OUTAGE = 4  # the site was down: a run of zeros that is not its normal behaviour
    OUTLIER = 8  # far from the site's usual values; left in place
    BAD = MISSING | FILLED | OUTAGE


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Feature(_Frozen):
    """One measured quantity."""

    name: str
    unit: str  # "Mbit/s", "1" for a share, "a.u." for arbitrary units
    low: float | None = None  # physical bounds, in the unit
    high: float | None = None


class Segment(_Frozen):
    """A stretch of rows [start, stop) that windows never cross the edges of."""

    name: str
    start: int
    stop: int


class PanelSchema(_Frozen):
    """What a panel is, carried in every file of it."""

    version: Literal[1] = 1
    dataset: str
    sites: tuple[str, ...]
    features: tuple[Feature, ...]
    targets: tuple[str, ...]
    cadence_s: float
    clock: Literal["utc", "relative"]
    timezone: str = "UTC"  # in which hours of day and weekdays are counted
    start_ms: int  # first row, epoch milliseconds (utc) or 0 (relative)
    rows: int
    segments: tuple[Segment, ...]
    grid: tuple[int, int] | None = None  # sites are row-major on a grid of (rows, columns)
    coordinates: tuple[tuple[float, float], ...] | None = None  # (x, y) or (longitude, latitude) a site
    licence: str
    attribution: str
    noise_floor: dict[str, float] | None = None  # error of the generating process a target, where it is known (MAE)
    adjacency: tuple[tuple[int, int, float], ...] | None = None  # (site, other site, weight) by position, where weight > 0


class Panel:
    """Telemetry in memory or mapped from disk: `values(feature)` and `flags(feature)` are (rows, sites) arrays."""

    def __init__(self, schema: PanelSchema, source: _Source) -> None:
        self.schema = schema
        self._source = source
        self._cache: dict[str, np.ndarray] = {}

    @classmethod
    def open(cls, folder: Path) -> Panel:
        """Map a panel's files; nothing is read until it is asked for.

        Raises:
            FormatError: no panel there, a day missing, or a file that is corrupt.
        """
        paths = sorted(folder.glob("*.arrow"))
        if not paths:
            raise FormatError(f"no panel in {folder}: expected one .arrow file a day; run `cellwright step normalise` first")
        days = [dayfiles.map_day(path) for path in paths]
        segments = tuple(Segment(name=n, start=a, stop=b) for n, a, b in dayfiles.joined_segments(days))
        try:
            schema = PanelSchema(**dayfiles.constants(days), rows=sum(d.rows for d in days), segments=segments)
        except ValueError as error:
            raise FormatError(f"{paths[0]} carries a schema of another form ({error}); run normalise again") from error
        dayfiles.follow(days, schema.cadence_s)
        return cls(schema, _Mapped(days))

    @classmethod
    def from_arrays(cls, schema: PanelSchema, values: dict[str, np.ndarray], flags: dict[str, np.ndarray] | None = None) -> Panel:
        """A panel in memory. `values` and `flags`: feature -> (rows, sites); flags default to missing where NaN.

        Raises:
            FormatError: a feature is not there, or an array has another shape than (rows, sites).
        """
        columns: dict[str, np.ndarray] = {}
        for name in (f.name for f in schema.features):
            if name not in values:
                raise FormatError(
                    f"{name}: the schema has this feature, the arrays do not; there are {', '.join(sorted(values))}"
                )
            array = np.ascontiguousarray(values[name], dtype=np.float32)
            given = None if flags is None else flags.get(name)
            marks = np.where(np.isnan(array), np.uint8(Flag.MISSING), np.uint8(0)) if given is None else given
            _check_shape(name, array, schema)
            _check_shape(f"{name}.flags", marks, schema)
            columns[name], columns[f"{name}.flags"] = array, marks.astype(np.uint8, copy=False)
        return cls(schema, _Held(columns))

    def values(self, feature: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(rows, sites) float32, raw units, NaN where masked; rows [start, stop) if given, read from their days alone."""
        return self._column(feature, feature, start, stop)

    def flags(self, feature: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """(rows, sites) uint8 of `Flag` bits; rows [start, stop) if given."""
        return self._column(feature, f"{feature}.flags", start, stop)

    def good(self, feature: str) -> np.ndarray:
        """(rows, sites) bool: really measured, hence usable as a target."""
        return (self.flags(feature) & int(Flag.BAD)) == 0

    def times_ms(self) -> np.ndarray:
        """(rows,) int64: start of each interval, epoch milliseconds, or since the first row on a relative clock."""
        return self.schema.start_ms + (np.arange(self.schema.rows) * self.schema.cadence_s * 1000).round().astype(np.int64)

    def save(self, folder: Path) -> None:
        """Write the panel whole, one Arrow IPC file a day.

        Raises:
            WorkspaceError: the disk is full or the folder is not writable; an older panel there stays as it was.
        """
        with whole_folder(folder) as aside:
            self.write_days(aside)

    def write_days(self, folder: Path) -> None:
        """Write the day files into an existing folder.

        Raises:
            FormatError: two segments share a name, so that their stretches could not be told apart.
        """
        names = [s.name for s in self.schema.segments]
        if len(set(names)) != len(names):
            raise FormatError(f"segments need different names, found {', '.join(names)}")
        common = self.schema.model_dump(mode="json", exclude={"rows", "segments"})
        for day, start, stop in _days(self.times_ms()):
            columns = {n: self._column(n.removesuffix(".flags"), n, start, stop) for n in _columns(self.schema)}
            start_ms = self.schema.start_ms + round(start * self.schema.cadence_s * 1000)
            dayfiles.write_day(folder / _day_name(self.schema, day), columns, common, start_ms, _within(self.schema, start, stop))

    def _column(self, feature: str, column: str, start: int, stop: int | None) -> np.ndarray:
        if feature not in {f.name for f in self.schema.features}:
            raise UnknownName("feature", feature, (f.name for f in self.schema.features))
        end = self.schema.rows if stop is None else stop
        if column in self._cache:
            return self._cache[column][start:end]
        array = self._source.rows(column, len(self.schema.sites), start, end)
        if start == 0 and end == self.schema.rows:
            self._cache[column] = array
        return array


class _Source(Protocol):
    def rows(self, name: str, sites: int, start: int, stop: int) -> np.ndarray: ...


class _Held:
    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.columns = columns

    def rows(self, name: str, sites: int, start: int, stop: int) -> np.ndarray:
        return self.columns[name][start:stop]


class _Mapped:
    def __init__(self, days: list[dayfiles.Day]) -> None:
        self.days = days

    def rows(self, name: str, sites: int, start: int, stop: int) -> np.ndarray:
        return dayfiles.read_rows(self.days, name, sites, start, stop)


def _check_shape(name: str, array: np.ndarray, schema: PanelSchema) -> None:
    if array.shape != (schema.rows, len(schema.sites)):
        raise FormatError(f"{name}: expected {(schema.rows, len(schema.sites))} values (rows, sites), found {array.shape}")


def _columns(schema: PanelSchema) -> list[str]:
    return [name for f in schema.features for name in (f.name, f"{f.name}.flags")]


_DAY_MS = 86_400_000


def _days(times_ms: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(day since the epoch or the first row, first row, end) of every file."""
    days = times_ms // _DAY_MS
    starts = np.flatnonzero(np.r_[True, days[1:] != days[:-1]])
    for start, stop in zip(starts, [*starts[1:], len(days)], strict=True):
        yield int(days[start]), int(start), int(stop)


def _day_name(schema: PanelSchema, day: int) -> str:
    if schema.clock == "relative":
        return f"day-{day:05d}.arrow"
    return f"{datetime.fromtimestamp(day * _DAY_MS / 1000, UTC):%Y-%m-%d}.arrow"


def _within(schema: PanelSchema, start: int, stop: int) -> list[dayfiles.Stretch]:
    """The segments' stretches inside rows [start, stop), counted from `start`."""
    cut = [(s.name, max(s.start, start) - start, min(s.stop, stop) - start) for s in schema.segments]
    return [(name, a, b) for name, a, b in cut if a < b]
