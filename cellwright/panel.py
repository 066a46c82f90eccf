"""Panel: time × site × feature, regular in time; the one form that telemetry has in this house.

On disk a panel is a folder of Arrow IPC files, one a day (`2013-11-01.arrow`, or `day-00003.arrow` on a relative clock), so that a
panel that grows adds files and DVC stores only what is new. Each file holds a row a time step and, for every feature F, two
columns of fixed-size lists over the sites: `F` (float32, raw units, NaN where masked) and `F.flags` (uint8). They are
uncompressed, so a day is memory-mapped without a copy. The whole schema is in every file's metadata (`cellwright.panel`, JSON).
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntFlag
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

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
        schema = _schema_of(paths[-1])
        source = _Mapped(paths)
        if source.rows != schema.rows:
            raise FormatError(f"{folder}: its files hold {source.rows} rows, the schema says {schema.rows}; run normalise again")
        return cls(schema, source)

    @classmethod
    def from_arrays(cls, schema: PanelSchema, values: dict[str, np.ndarray], flags: dict[str, np.ndarray] | None = None) -> Panel:
        """A panel in memory. `values` and `flags`: feature -> (rows, sites); flags default to missing where NaN."""
        columns: dict[str, np.ndarray] = {}
        for feature in schema.features:
            array = np.ascontiguousarray(values[feature.name], dtype=np.float32)
            if array.shape != (schema.rows, len(schema.sites)):
                raise FormatError(
                    f"{feature.name}: expected {(schema.rows, len(schema.sites))} values (rows, sites), found {array.shape}"
                )
            columns[feature.name] = array
            given = None if flags is None else flags.get(feature.name)
            columns[f"{feature.name}.flags"] = (
                np.where(np.isnan(array), np.uint8(Flag.MISSING), np.uint8(0)) if given is None else given.astype(np.uint8)
            )
        return cls(schema, _Held(columns))

    def values(self, feature: str) -> np.ndarray:
        """(rows, sites) float32, raw units, NaN where masked."""
        return self._column(feature, feature)

    def flags(self, feature: str) -> np.ndarray:
        """(rows, sites) uint8 of `Flag` bits."""
        return self._column(feature, f"{feature}.flags")

    def good(self, feature: str) -> np.ndarray:
        """(rows, sites) bool: really measured, hence usable as a target."""
        return (self.flags(feature) & int(Flag.BAD)) == 0

    def times_ms(self) -> np.ndarray:
        """(rows,) int64: start of each interval, epoch milliseconds, or since the first row on a relative clock."""
        return self.schema.start_ms + (np.arange(self.schema.rows) * self.schema.cadence_s * 1000).round().astype(np.int64)

    def save(self, folder: Path) -> None:
        """Write the panel whole, one Arrow IPC file a day."""
        with whole_folder(folder) as aside:
            days = _day_of(self.times_ms())
            starts = np.flatnonzero(np.r_[True, days[1:] != days[:-1]])
            for start, stop in zip(starts, [*starts[1:], len(days)], strict=True):
                _write_day(aside / _day_name(self.schema, int(days[start])), self, int(start), int(stop))

    def _column(self, feature: str, column: str) -> np.ndarray:
        if feature not in {f.name for f in self.schema.features}:
            raise UnknownName("feature", feature, (f.name for f in self.schema.features))
        if column not in self._cache:
            self._cache[column] = self._source.column(column, len(self.schema.sites))
        return self._cache[column]


class _Source(Protocol):
    def column(self, name: str, sites: int) -> np.ndarray: ...


class _Held:
    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.columns = columns

    def column(self, name: str, sites: int) -> np.ndarray:
        return self.columns[name]


class _Mapped:
    def __init__(self, paths: list[Path]) -> None:
        self.days = [_map(path) for path in paths]
        self.rows = sum(day.num_rows for day in self.days)

    def column(self, name: str, sites: int) -> np.ndarray:
        parts = [
            chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, sites)
            for day in self.days
            for chunk in day.column(name).chunks
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _map(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(f"{path} is not a whole Arrow file ({error}); delete it and run normalise again") from error


def _schema_of(path: Path) -> PanelSchema:
    metadata = _map(path).schema.metadata or {}
    if b"cellwright.panel" not in metadata:
        raise FormatError(f"{path} is an Arrow file, but not of a panel: its metadata lacks 'cellwright.panel'")
    return PanelSchema.model_validate_json(metadata[b"cellwright.panel"])


_DAY_MS = 86_400_000


def _day_of(times_ms: np.ndarray) -> np.ndarray:
    return times_ms // _DAY_MS


def _day_name(schema: PanelSchema, day: int) -> str:
    if schema.clock == "relative":
        return f"day-{day:05d}.arrow"
    return f"{datetime.fromtimestamp(day * _DAY_MS / 1000, UTC):%Y-%m-%d}.arrow"


def _write_day(path: Path, panel: Panel, start: int, stop: int) -> None:
    sites = len(panel.schema.sites)
    names = [n for f in panel.schema.features for n in (f.name, f"{f.name}.flags")]
    arrays = [
        pa.FixedSizeListArray.from_arrays(pa.array(panel._column(n.removesuffix(".flags"), n)[start:stop].reshape(-1)), sites)
        for n in names
    ]
    schema = pa.schema(
        [pa.field(n, a.type) for n, a in zip(names, arrays, strict=True)],
        metadata={b"cellwright.panel": panel.schema.model_dump_json().encode()},
    )
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
