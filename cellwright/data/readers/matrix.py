"""A grid without a header: a row a time step, a column a square, row-major; optionally a square adjacency matrix beside it.

Such files say neither when they begin nor which squares they hold: the catalogue does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cellwright.data.readers import _tables
from cellwright.data.readers._contract import SITE, TIME, Layout, Part, ReaderOptions
from cellwright.errors import FormatError

if TYPE_CHECKING:
    import polars as pl

    from cellwright.catalogue import Entry

title = "grid without a header (CSV)"


class Options(ReaderOptions):
    """What the file does not say."""

    start: str = Field(description="first row, ISO 8601; local time of the data set unless it has an offset")
    rows: tuple[int, int] = Field(description="first and last row of the grid")
    columns: tuple[int, int] = Field(description="first and last column of the grid")
    adjacency: str | None = Field(None, description="file of the adjacency matrix, beside the data")


def frames(files: Sequence[Path], entry: Entry, options: Options) -> list[Part]:
    """The data file in the long form (see `_contract`).

    Raises:
        FormatError: more than one data file, or a number of columns that is not the grid's.
    """
    import polars as pl

    data = [f for f in files if f.name != options.adjacency]
    if len(data) != 1 or len(entry.features) != 1:
        raise FormatError(f"a matrix is one file and one feature; found {len(data)} files, {len(entry.features)} features")
    table, sites = _square(data[0], _sites(options)), _sites(options)
    start, step = _tables.start_ms(options.start, entry.timezone), round(entry.cadence_s * 1000)
    feature = next(iter(entry.features))
    numbers = table.select(*(_tables.number(c).alias(s) for c, s in zip(table.collect_schema().names(), sites, strict=True)))
    rows = numbers.with_row_index("\0row").with_columns((pl.col("\0row").cast(pl.Int64) * step + start).alias(TIME))
    return [Part(data[0], rows.drop("\0row").unpivot(index=TIME, variable_name=SITE, value_name=feature))]


def layout(files: Sequence[Path], entry: Entry, options: Options) -> Layout:
    """Sites in the order of the columns, their grid, and who neighbours whom."""
    (top, bottom), (left, right) = options.rows, options.columns
    sites = _sites(options)
    return Layout(
        sites=tuple(sites),
        grid=(bottom - top + 1, right - left + 1),
        coordinates={s: (float(s.split("-")[1]), float(s.split("-")[0])) for s in sites},
        adjacency=_adjacency(files, options, sites),
    )


def _sites(options: Options) -> list[str]:
    (top, bottom), (left, right) = options.rows, options.columns
    return [f"{row}-{column}" for row in range(top, bottom + 1) for column in range(left, right + 1)]


def _square(file: Path, sites: Sequence[str]) -> pl.LazyFrame:
    table = _tables.scan(file, header=False)
    found = len(table.collect_schema().names())
    if found != len(sites):
        raise FormatError(f"{file} has {found} columns, its grid {len(sites)} squares; correct rows and columns in the catalogue")
    return table


def _adjacency(files: Sequence[Path], options: Options, sites: Sequence[str]) -> tuple[tuple[int, int, float], ...] | None:
    if options.adjacency is None:
        return None
    file = next((f for f in files if f.name == options.adjacency), None)
    if file is None:
        raise FormatError(f"the adjacency file {options.adjacency} is not among {', '.join(f.name for f in files)}")
    with _tables.explained(file):
        weights = _square(file, sites).select(_tables.number(c) for c in _square(file, sites).collect_schema().names()).collect()
    if weights.height != len(sites):
        raise FormatError(f"{file} has {weights.height} rows; an adjacency of {len(sites)} squares has as many")
    matrix = weights.to_numpy()
    return tuple((i, j, float(matrix[i, j])) for i in range(len(sites)) for j in range(len(sites)) if matrix[i, j])
