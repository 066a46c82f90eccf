"""Traffic of LTE carriers around the day on which the network near them changed (nds-group/ran-updates).

Two files: a table of daily z-scores (UUID, day relative to the change, DL, UL), and one of the carriers (UUID, urbanization,
technology, event type), by which carriers can be chosen. A carrier is a site; day 0 is the same for all, hence a relative clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cellwright.data.readers import _tables
from cellwright.data.readers._contract import SITE, TIME, Part, ReaderOptions
from cellwright.errors import FormatError

if TYPE_CHECKING:
    from cellwright.catalogue import Entry

title = "LTE carriers around network updates"


class Options(ReaderOptions):
    """The two files, and which carriers to take."""

    carriers: str = Field(description="file name of the table of carriers")
    urbanization: tuple[str, ...] = Field((), description="kinds of place to take; empty: all")
    event_type: tuple[str, ...] = Field((), description="kinds of change to take; empty: all")


def frames(files: Sequence[Path], entry: Entry, options: Options) -> list[Part]:
    """The daily table in the long form (see `_contract`), carriers not chosen left out.

    Raises:
        FormatError: a file is missing or a choice leaves no carrier.
    """
    import polars as pl

    carriers = next((f for f in files if f.name == options.carriers), None)
    daily = [f for f in files if f.name != options.carriers]
    if carriers is None or len(daily) != 1:
        raise FormatError(f"expected {options.carriers} and one daily table, found {', '.join(f.name for f in files)}")
    chosen = _chosen(carriers, options)
    columns = {name: f.column or name for name, f in entry.features.items()}
    table = _tables.scan(daily[0], numbers=list(columns.values()))
    _tables.require(table, ["UUID", "day", *columns.values()], daily[0])
    rows = table.select(
        pl.col("day").cast(pl.Int64).alias(TIME), pl.col("UUID").alias(SITE), *(pl.col(c).alias(n) for n, c in columns.items())
    )
    return [Part(daily[0], _tables.timed(rows.filter(pl.col(SITE).is_in(chosen)), "days", entry))]


def _chosen(file: Path, options: Options) -> list[str]:
    import polars as pl

    table = _tables.scan(file)
    _tables.require(table, ["UUID", "urbanization", "event_type"], file)
    for column in ("urbanization", "event_type"):
        if wanted := getattr(options, column):
            table = table.filter(pl.col(column).is_in(wanted))
    with _tables.explained(file):
        chosen: list[str] = table.select("UUID").collect().to_series().to_list()
    if not chosen:
        raise FormatError(f"{file}: no carrier has urbanization {options.urbanization} and event_type {options.event_type}")
    return chosen
