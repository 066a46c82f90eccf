"""Series that are joined by time: weather, timetables, prices. A row of telemetry sees the last value at or before its time.

A source is written `path:column`, or `path` where the file (CSV, Parquet) has one column beside its time; a path that is not
absolute is below the project's folder. The column's name becomes the channel's. The time column is called time, timestamp,
datetime or date; it holds ISO 8601 with an offset, time stamps with a zone (Parquet), or epoch milliseconds. On a relative clock
it counts milliseconds since the first row of the data set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cellwright.errors import DataError, FormatError, ParamsError, UnknownName
from cellwright.workspace import find_root

if TYPE_CHECKING:
    import polars as pl

_TIMES = ("time", "timestamp", "datetime", "date")
_SUFFIXES = (".csv", ".parquet", ".pq")
_RESERVED = ("@", "~", ":")
_LEAST_EPOCH_MS = 100_000_000_000  # March 1973; a smaller count is one of seconds
Clock = Literal["utc", "relative"]


@dataclass(frozen=True)
class Source:
    """One column of a file."""

    path: str  # as it is written in the parameters
    column: str

    @property
    def spec(self) -> str:
        return f"{self.path}:{self.column}"

    @property
    def file(self) -> Path:
        """Where it lies."""
        return located(self.path)


def located(path: str) -> Path:
    """A path of the parameters, seen from the project's folder."""
    given = Path(path)
    return given if given.is_absolute() else find_root() / given


def source_of(spec: str) -> Source:
    """The source that `path` or `path:column` means; its file is looked into.

    Raises:
        ParamsError: no such file, neither CSV nor Parquet, several columns and none is named, or a name that channels cannot have.
        UnknownName: no such column.
        FormatError: the file cannot be read, or has no time column.
    """
    path, column = (spec, "") if spec.lower().endswith(_SUFFIXES) else spec.rpartition(":")[::2]
    if not path.lower().endswith(_SUFFIXES):
        raise ParamsError(f"problem.exogenous: '{spec}' must be path.csv:column or path.parquet:column")
    file = located(path)
    if not file.is_file():
        raise ParamsError(f"problem.exogenous: there is no file {file}; correct the path, or take it out")
    names = _scan(file).collect_schema().names()
    others = [name for name in names if name != _time_column(names, file)]
    if not column and len(others) != 1:
        raise ParamsError(f"problem.exogenous: {path} has the columns {', '.join(others) or 'none'}; name one, as {path}:column")
    chosen = column or others[0]
    if chosen not in others:
        raise UnknownName(f"column of {path} (problem.exogenous)", chosen, others)
    if any(mark in chosen for mark in _RESERVED) or chosen == "valid":
        raise ParamsError(f"problem.exogenous: a column '{chosen}' would be taken for another channel; rename it in {path}")
    return Source(path, chosen)


def channel(spec: str) -> str:
    """Name of the channel of a whole `path:column`."""
    return spec.rpartition(":")[2]


def values(spec: str, times_ms: np.ndarray, clock: Clock) -> np.ndarray:
    """(rows,) float32: of each time the last value known at or before it, NaN before the first; never one of later.

    Raises:
        ParamsError, FormatError: as `source_of`.
        DataError: the series and the times do not overlap.
    """
    source = source_of(spec)
    stamps, numbers = _series(source, clock)
    if not len(stamps) or stamps[0] > times_ms[-1] or stamps[-1] < times_ms[0]:
        spans = " to ".join(_shown(t, clock) for t in (stamps[0], stamps[-1])) if len(stamps) else "no value"
        wanted = " to ".join(_shown(t, clock) for t in (times_ms[0], times_ms[-1]))
        raise DataError(f"{source.spec} holds {spans}, the telemetry {wanted}: no overlap; bring a series of the same time")
    last = np.searchsorted(stamps, times_ms, side="right") - 1
    return np.where(last >= 0, numbers[np.maximum(last, 0)], np.float32(np.nan))


def digests(specs: tuple[str, ...]) -> list[str]:
    """SHA-256 of the file of each source, so that what is made from it knows when it changed.

    Raises:
        ParamsError, FormatError: as `source_of`.
    """
    return [hashlib.sha256(source_of(spec).file.read_bytes()).hexdigest() for spec in specs]


def _scan(file: Path) -> pl.LazyFrame:
    import polars as pl

    try:
        found = pl.scan_csv(file, infer_schema=False) if file.suffix.lower() == ".csv" else pl.scan_parquet(file)
        found.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FormatError(f"{file} cannot be read as a series ({str(error).splitlines()[0]}); check the file") from error
    return found


def _time_column(names: list[str], file: Path) -> str:
    found = next((name for name in names if name.lower() in _TIMES), None)
    if found is None:
        raise FormatError(f"{file} has no time column: expected one of {', '.join(_TIMES)}, found {', '.join(names)}")
    return found


def _series(source: Source, clock: Clock) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) int64 ms ascending and values (n,) float32; what is no finite number is left out, of equal times the last counts."""
    import polars as pl

    frame = _scan(source.file)
    time = pl.col(_time_column(frame.collect_schema().names(), source.file))
    try:
        both = frame.select(time.alias("time"), pl.col(source.column).cast(pl.Float32, strict=True).alias("value")).collect()
    except pl.exceptions.PolarsError as error:
        raise FormatError(f"{source.spec} holds what is no number ({str(error).splitlines()[0]}); correct the file") from error
    stamps = _milliseconds(both["time"], source.file, clock)
    numbers = both["value"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    known = np.flatnonzero(np.isfinite(numbers))
    order = known[np.argsort(stamps[known], kind="stable")]
    return stamps[order], numbers[order]


def _milliseconds(stamps: pl.Series, file: Path, clock: Clock) -> np.ndarray:
    """Time stamps as milliseconds of the clock.

    Raises:
        FormatError: missing ones, ones without a zone, or of another clock.
    """
    import polars as pl

    if stamps.null_count():
        raise FormatError(f"{file}: {stamps.null_count()} rows have no time; take them out")
    if stamps.dtype == pl.String:
        counts = stamps.cast(pl.Int64, strict=False)
        stamps = counts if not counts.null_count() else _from_text(stamps, file)
    if stamps.dtype.is_integer():
        return _counted(stamps.cast(pl.Int64).to_numpy(), file, clock)
    if not isinstance(stamps.dtype, pl.Datetime) or stamps.dtype.time_zone is None:
        raise FormatError(
            f"{file}: times of type {stamps.dtype} have no time zone, so they are not moments; write an offset (2013-11-01T00:00:00+01:00)"
        )
    if clock == "relative":
        raise FormatError(f"{file} holds dates, but the data set's clock is relative: write milliseconds since its first row")
    return stamps.dt.epoch("ms").to_numpy()


def _from_text(stamps: pl.Series, file: Path) -> pl.Series:
    import polars as pl

    try:
        offset = datetime.fromisoformat(str(stamps[0])).tzinfo
        if offset is None:
            raise FormatError(
                f"{file}: the time {stamps[0]} has no time zone, so it is not a moment; write {stamps[0]}Z or +01:00"
            )
        return stamps.str.to_datetime(time_unit="ms", time_zone="UTC", strict=True)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise FormatError(f"{file}: times must be ISO 8601 with an offset, or epoch milliseconds ({error})") from error


def _counted(counts: np.ndarray, file: Path, clock: Clock) -> np.ndarray:
    if clock == "utc" and len(counts) and counts.max() < _LEAST_EPOCH_MS:
        raise FormatError(f"{file}: {counts.max()} is before 1973 in epoch milliseconds; are these seconds? Write milliseconds")
    return counts


def _shown(time_ms: int, clock: Clock) -> str:
    return f"{time_ms} ms" if clock == "relative" else f"{datetime.fromtimestamp(int(time_ms) / 1000, UTC):%Y-%m-%d %H:%M}"
