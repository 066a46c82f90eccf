"""The daily files of Telecom Italia's Big Data Challenge, `sms-call-internet-mi-2013-11-01.txt` (Milan) and `-tn-` (Trentino).

Tab-separated, without a header: square, start of the interval (epoch milliseconds), country code, SMS in, SMS out, calls in,
calls out, Internet; a row a country, a blank where there was none. Countries are summed, a blank counting as 0; a square and
time without any row is missing. (Barlacchi et al., Scientific Data 2:150055, 2015.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cellwright.data.readers import _tables
from cellwright.data.readers._contract import SITE, TIME, Layout, Part, ReaderOptions
from cellwright.errors import FormatError, UnknownName

if TYPE_CHECKING:
    import polars as pl

    from cellwright.catalogue import Entry

title = "Telecom Italia SMS, call and Internet activity"

VALUES = ("sms_in", "sms_out", "call_in", "call_out", "internet")
NAMES = ("square", "time", "country", *VALUES)
PATTERN = re.compile(r"sms-call-internet-(mi|tn)-\d{4}-\d{2}-\d{2}\.txt(\.gz)?")


class Options(ReaderOptions):
    """The grid: squares count from 1, row by row."""

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    complete: bool = Field(True, description="whether every square of the grid has telemetry")


def frames(files: Sequence[Path], entry: Entry, options: Options) -> list[Part]:
    """One part a day, in the long form (see `_contract`).

    Raises:
        FormatError: a file of another name or another number of columns.
    """
    return [Part(file, _day(file, entry)) for file in files]


def _day(file: Path, entry: Entry) -> pl.LazyFrame:
    import polars as pl

    if not PATTERN.fullmatch(file.name):
        raise FormatError(f"{file} is not called sms-call-internet-mi-YYYY-MM-DD.txt (or -tn-); take it out of the folder")
    columns = {name: f.column or name for name, f in entry.features.items()}
    for column in columns.values():
        if column not in VALUES:
            raise UnknownName("activity", column, VALUES)
    table = _tables.scan(file, separator="\t", header=False)
    found = table.collect_schema().names()
    if len(found) != len(NAMES):
        raise FormatError(f"{file} has {len(found)} tab-separated columns, expected {len(NAMES)}: {', '.join(NAMES)}")
    named = table.rename(dict(zip(found, NAMES, strict=True)))
    axes = [pl.col("time").cast(pl.Int64).alias(TIME), pl.col("square").alias(SITE)]
    values = [pl.col(column).cast(pl.Float64).alias(name) for name, column in columns.items()]
    summed = named.select(*axes, *values).group_by(TIME, SITE, maintain_order=True).agg(pl.col(*columns).sum())
    return summed.with_columns(pl.col(*columns).cast(pl.Float32))


def layout(files: Sequence[Path], entry: Entry, options: Options) -> Layout:
    """Coordinates of every square; a grid where it is complete."""
    squares = range(1, options.rows * options.columns + 1)
    places = {str(s): (float((s - 1) % options.columns), float((s - 1) // options.columns)) for s in squares}
    if not options.complete:
        return Layout(coordinates=places)
    return Layout(sites=tuple(places), grid=(options.rows, options.columns), coordinates=places)
