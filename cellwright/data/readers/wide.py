"""Your own telemetry, wide: a row a time, and a column a site (or a column a site and feature).

time                 A17    A18                      time                 A17:dl_mbit   A17:users
2026-03-01 00:00     12.4   9.1                      2026-03-01 00:00     12.4          31
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

title = "wide table (CSV or Parquet)"


class Options(ReaderOptions):
    """Which column is what."""

    time: str = Field(description="time column; every other one is a site's")
    format: str | None = Field(None, description=_tables.FORMAT_HELP)
    split: str | None = Field(None, description="what stands between site and feature in a column's name; none: one feature only")
    ignore: tuple[str, ...] = Field((), description="columns that are neither time nor a site's")
    separator: str = ","


def frames(files: Sequence[Path], entry: Entry, options: Options) -> list[Part]:
    """The files in the long form (see `_contract`), one part a file and feature."""
    return [part for file in files for part in _of_file(file, entry, options)]


def _of_file(file: Path, entry: Entry, options: Options) -> list[Part]:
    import polars as pl

    table = _tables.scan(file, separator=options.separator)
    _tables.require(table, [options.time], file)
    others = [c for c in table.collect_schema().names() if c not in (options.time, *options.ignore)]
    parts = []
    for feature, wanted in entry.features.items():
        sites = _sites(others, feature, wanted.column or feature, entry, options.split)
        if not sites:
            raise FormatError(
                f"{file} has no column of the feature '{feature}'; it has {', '.join(others[:20]) or 'only the time'}"
            )
        wide = table.select(pl.col(options.time).alias(TIME), *(_tables.number(c).alias(s) for c, s in sites.items()))
        rows = wide.unpivot(index=TIME, variable_name=SITE, value_name=feature)
        with _tables.explained(file):
            parts.append(Part(file, _tables.timed(rows, options.format, entry)))
    return parts


def _sites(columns: Sequence[str], feature: str, called: str, entry: Entry, split: str | None) -> dict[str, str]:
    """Column -> site, for one feature."""
    if split is None:
        if len(entry.features) > 1:
            raise FormatError(
                f"{entry.name} describes {len(entry.features)} features of one column a site; set options.split to what stands "
                f"between site and feature in a column's name, or describe one feature"
            )
        return {c: c for c in columns}
    return {c: c.removesuffix(f"{split}{called}") for c in columns if c.endswith(f"{split}{called}")}
