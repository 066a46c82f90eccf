"""What the readers of tables share: scanning CSV and Parquet, finding columns, and turning time stamps into UTC milliseconds."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cellwright.data.readers._contract import SITE, TIME
from cellwright.errors import FormatError

if TYPE_CHECKING:
    import polars as pl

    from cellwright.catalogue import Entry

NULLS = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]
UNITS_MS = {"epoch_ns": 1e-6, "epoch_us": 1e-3, "epoch_ms": 1.0, "epoch_s": 1e3, "days": 86_400_000.0}
FORMAT_HELP = (
    "none: ISO 8601 or a column of date type; epoch_s, epoch_ms, epoch_us, epoch_ns, days; or a pattern like %d.%m.%Y %H:%M"
)


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Turn what polars says of a file into a FormatError that names it."""
    import polars as pl

    try:
        yield
    except pl.exceptions.NoDataError as error:
        raise FormatError(f"{file} is empty; expected a header and rows. Remove it or fetch it again") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise FormatError(
            f"{file} cannot be read as the catalogue describes it: {first}. Check the file, or fetch it again"
        ) from error


def scan(file: Path, *, separator: str = ",", header: bool = True, numbers: Sequence[str] = ()) -> pl.LazyFrame:
    """A table, not yet read: Parquet by its suffix, else CSV (`.gz` too), whose columns are text but for `numbers` (Float32).

    Raises:
        FormatError: empty or corrupt.
    """
    import polars as pl

    with explained(file):
        if file.stat().st_size == 0:
            raise FormatError(f"{file} is empty; expected a header and rows. Remove it or fetch it again")
        if file.suffix in (".parquet", ".pq"):
            frame = pl.scan_parquet(file, glob=False)
        else:
            frame = pl.scan_csv(
                file, separator=separator, has_header=header, infer_schema=False, null_values=NULLS, glob=False,
                schema_overrides=dict.fromkeys(numbers, pl.Float32),
            )  # fmt: skip
        frame.collect_schema()
        return frame


def require(frame: pl.LazyFrame, wanted: Sequence[str], file: Path) -> None:
    """Check that columns are there.

    Raises:
        FormatError: names the missing column, the nearest one there is, and all of them.
    """
    there = frame.collect_schema().names()
    for name in wanted:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            shown = ", ".join(there[:20]) + (" …" if len(there) > 20 else "")
            raise FormatError(f"{file} has no column '{name}'; it has {shown}.{guess} Name it in the catalogue")


def number(column: str) -> pl.Expr:
    """A column as Float32; text that is not a number is an error, never a silent gap."""
    import polars as pl

    return pl.col(column).cast(pl.Float32, strict=True)


def timed(frame: pl.LazyFrame, form: str | None, entry: Entry) -> pl.LazyFrame:
    """Turn the column `time_ms`, as it came, into milliseconds. See `FORMAT_HELP` for `form`.

    Raises:
        FormatError: it is neither text, nor a date, nor a number whose unit is stated.
    """
    import polars as pl

    kind = frame.collect_schema()[TIME]
    stamp = pl.col(TIME)
    if form in UNITS_MS:
        exact = stamp.cast(pl.Int64) if form in ("epoch_ms", "epoch_s") and kind.is_integer() else stamp.cast(pl.Float64)
        return frame.with_columns((exact * UNITS_MS[form]).round(0).cast(pl.Int64).alias(TIME))
    if kind == pl.String:
        kind = _text_kind(frame, form)
        stamp = stamp.str.to_datetime(form, time_unit="ms", time_zone="UTC" if _zone(kind) else None)
    elif kind == pl.Date:
        stamp = stamp.cast(pl.Datetime("ms"))
    elif not isinstance(kind, pl.Datetime):
        raise FormatError(f"the time column is {kind}; say in options.format what it counts ({FORMAT_HELP})")
    if _zone(kind) or not _shifts(entry):
        return frame.with_columns(stamp.dt.cast_time_unit("ms").dt.epoch("ms").alias(TIME))
    local = frame.with_columns(stamp.dt.cast_time_unit("ms").alias(TIME))
    return local.with_columns(
        pl.struct(TIME, SITE).map_batches(lambda s: local_to_utc(s, entry.timezone), return_dtype=pl.Int64).alias(TIME)
    )


def _zone(kind: pl.DataType) -> str | None:
    return getattr(kind, "time_zone", None)


def _text_kind(frame: pl.LazyFrame, form: str | None) -> pl.DataType:
    import polars as pl

    first = frame.select(TIME).head(1).collect().to_series()
    if form is None and len(first) and _has_offset(str(first[0])):
        return pl.Datetime("ms", "UTC")
    return pl.Datetime("ms", "UTC" if form and "%z" in form else None)


def _has_offset(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError as error:
        raise FormatError(
            f"the time '{text}' is not ISO 8601; say in options.format how it is written ({FORMAT_HELP})"
        ) from error


def _shifts(entry: Entry) -> bool:
    """Whether naive stamps have to be moved to UTC. Daily data stay on their calendar days, which have 23 or 25 hours."""
    return entry.clock == "utc" and entry.timezone != "UTC" and entry.cadence_s % 86_400 != 0


def local_to_utc(stamps: pl.Series, zone: str) -> pl.Series:
    """Naive local time (a struct of time_ms and site) as epoch milliseconds.

    In the hour that autumn repeats, a site's first row of a time is taken as summer time and its second as winter time.

    Raises:
        FormatError: a time that the zone skips in spring.
    """
    import polars as pl

    local = stamps.struct.field(TIME)
    aware = local.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    if aware.null_count() == local.null_count():
        return aware.dt.epoch("ms")
    early = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    if early.null_count() > local.null_count():
        lost = local.filter(early.is_null() & local.is_not_null())[0]
        raise FormatError(
            f"{lost} does not exist in {zone} (clocks skip that hour in spring); is `timezone` in the catalogue right?"
        )
    rows = pl.DataFrame({TIME: local, SITE: stamps.struct.field(SITE), "early": early}).with_columns(
        late=pl.col(TIME).dt.replace_time_zone(zone, ambiguous="latest"),
        again=pl.int_range(pl.len()).over(TIME, SITE) > 0,
    )
    return rows.select(pl.when("again").then("late").otherwise("early").dt.epoch("ms")).to_series()


def start_ms(text: str, zone: str) -> int:
    """An ISO 8601 time stamp as epoch milliseconds; a naive one is local time of `zone`."""
    moment = datetime.fromisoformat(text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))
    return round(aware.timestamp() * 1000)


def when(time_ms: int, entry: Entry) -> str:
    """A time stamp for people."""
    if entry.clock == "relative":
        return f"{time_ms / 1000:g} s"
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    return moment.astimezone(ZoneInfo(entry.timezone)).isoformat(timespec="seconds")
