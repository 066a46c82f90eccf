"""Your own telemetry, long: a row a site and time, and a column a feature (or one column that names the feature).

time                 cell   dl_mbit   users          time                 cell   kpi       value
2026-03-01 00:00     A17    12.4      31             2026-03-01 00:00     A17    dl_mbit   12.4
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from cellwright.data.readers import _tables
from cellwright.data.readers._contract import SITE, TIME, Part, ReaderOptions

if TYPE_CHECKING:
    from cellwright.catalogue import Entry

title = "long table (CSV or Parquet)"


class Options(ReaderOptions):
    """Which column is what."""

    time: str = Field(description="time column")
    format: str | None = Field(None, description=_tables.FORMAT_HELP)
    site: str | None = Field(None, description="site column; none: all rows are one site, called `site_name`")
    site_name: str = "network"
    feature: str | None = Field(None, description="column that names the feature, where each has a row of its own")
    value: str | None = Field(None, description="column of the value, with `feature`")
    separator: str = ","

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.feature is None) != (self.value is None):
            raise ValueError("feature and value belong together: give both or neither")
        return self


def frames(files: Sequence[Path], entry: Entry, options: Options) -> list[Part]:
    """The files in the long form (see `_contract`)."""
    return [part for file in files for part in _of_file(file, entry, options)]


def _of_file(file: Path, entry: Entry, options: Options) -> list[Part]:
    import polars as pl

    columns = {name: f.column or name for name, f in entry.features.items()}
    values = [options.value] if options.value else list(columns.values())
    table = _tables.scan(file, separator=options.separator, numbers=values)
    wanted = [options.time, options.site, options.feature, *values]
    _tables.require(table, [w for w in wanted if w is not None], file)
    site = pl.col(options.site).cast(pl.String) if options.site else pl.lit(options.site_name)
    axes = [pl.col(options.time).alias(TIME), site.alias(SITE)]
    with _tables.explained(file):
        if options.feature is None:
            wide = table.select(*axes, *(_tables.number(c).alias(n) for n, c in columns.items()))
            return [Part(file, _tables.timed(wide, options.format, entry))]
        named = {n: table.filter(pl.col(options.feature).cast(pl.String) == c) for n, c in columns.items()}
        picked = {n: rows.select(*axes, _tables.number(values[0]).alias(n)) for n, rows in named.items()}
        return [Part(file, _tables.timed(rows, options.format, entry)) for rows in picked.values()]
