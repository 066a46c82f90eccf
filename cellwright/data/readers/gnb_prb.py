"""Scheduler traces of a gNB (TRACTOR): a file a trial and UE, `trial6_t3_002.csv`, a row every 250 ms.

A UE is a site. Each trial is a segment on a relative clock; where both UEs are silent for longer than `split_gap_s`, the
segment ends and another begins (`t1`, `t1-2`). The time stamps wander by some milliseconds: the catalogue's `snap_s` moves
them to the grid. Of the 36 columns only those that the catalogue names are read; the unnamed ones are empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cellwright.data.readers import _tables
from cellwright.data.readers._contract import SEGMENT, SITE, TIME, Part, ReaderOptions
from cellwright.errors import FormatError

if TYPE_CHECKING:
    import polars as pl

    from cellwright.catalogue import Entry

title = "gNB scheduler traces (TRACTOR)"

PATTERN = re.compile(r"trial6_(t\d+)_(\d{3})\.csv(\.gz)?")


class Options(ReaderOptions):
    """How trials are cut."""

    time: str = "Timestamp"
    split_gap_s: float = Field(60, gt=0, description="silence of every UE, in seconds, that ends a segment")


def frames(files: Sequence[Path], entry: Entry, options: Options) -> list[Part]:
    """One part a file, in the long form (see `_contract`)."""
    parts = []
    for trial, members in groupby(sorted(files), key=lambda f: _name(f)[0]):
        tables = {file: _table(file, entry, options) for file in members}
        edges = _edges(list(tables.values()), options.split_gap_s)
        parts += [Part(file, _cut(table, trial, edges)) for file, table in tables.items()]
    return parts


def _name(file: Path) -> tuple[str, str]:
    found = PATTERN.fullmatch(file.name)
    if not found:
        raise FormatError(f"{file} is not called trial6_<trial>_<UE>.csv; take it out of the folder")
    return found[1], found[2]


def _table(file: Path, entry: Entry, options: Options) -> pl.DataFrame:
    import polars as pl

    columns = {name: f.column or name for name, f in entry.features.items()}
    table = _tables.scan(file, numbers=list(columns.values()))
    _tables.require(table, [options.time, *columns.values()], file)
    with _tables.explained(file):
        return table.select(
            pl.col(options.time).cast(pl.Int64).alias(TIME),
            pl.lit(f"ue-{_name(file)[1]}").alias(SITE),
            *(pl.col(column).alias(name) for name, column in columns.items()),
        ).collect()


def _edges(tables: Sequence[pl.DataFrame], gap_s: float) -> list[int]:
    """Time stamps at which a segment begins: the first, and each after a silence of all UEs."""
    import polars as pl

    times = pl.concat([t[TIME] for t in tables]).sort()
    return [int(times[0]), *times.filter(times.diff() > gap_s * 1000).to_list()]


def _cut(table: pl.DataFrame, trial: str, edges: Sequence[int]) -> pl.LazyFrame:
    import polars as pl

    names = [trial, *(f"{trial}-{n}" for n in range(2, len(edges) + 1))]
    name = pl.lit(names[0])
    for edge, later in zip(edges[1:], names[1:], strict=True):
        name = pl.when(pl.col(TIME) >= edge).then(pl.lit(later)).otherwise(name)
    return table.lazy().with_columns(name.alias(SEGMENT))
