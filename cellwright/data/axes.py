"""The axes of a panel: which sites, from when to when, on which grid of time. Found in one pass over times and sites alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellwright.catalogue import Entry
from cellwright.data.readers._contract import SEGMENT, SITE, TIME, Layout, Part
from cellwright.data.readers._tables import explained, when
from cellwright.errors import FormatError

if TYPE_CHECKING:
    import polars as pl

WHOLE = "all"  # the only segment of telemetry that has no others


@dataclass(frozen=True)
class Extent:
    """One segment's rows: [first_row, first_row + rows), beginning at `start_ms` of its own clock."""

    name: str
    start_ms: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class Axes:
    """Sites, and time as rows."""

    sites: tuple[str, ...]
    extents: tuple[Extent, ...]
    cadence_ms: int

    @property
    def rows(self) -> int:
        """Rows of all segments."""
        return self.extents[-1].first_row + self.extents[-1].rows


def prepared(part: Part, entry: Entry) -> pl.LazyFrame:
    """A part with a segment column, without the sites that the catalogue leaves out."""
    import polars as pl

    frame = part.frame
    if SEGMENT not in frame.collect_schema():
        frame = frame.with_columns(pl.lit(WHOLE).alias(SEGMENT))
    return frame.filter(~pl.col(SITE).is_in(entry.drop_sites)) if entry.drop_sites else frame


def survey(parts: Sequence[Part], entry: Entry, layout: Layout) -> Axes:
    """Find the axes.

    Raises:
        FormatError: no rows, rows without a time or site, times off the grid, or sites that the layout does not know.
    """
    import polars as pl

    cadence_ms = round(entry.cadence_s * 1000)
    looks = [_look(part, entry, cadence_ms) for part in parts]
    counts = pl.concat([c for c, _ in looks])
    if counts.is_empty():
        raise FormatError(
            f"{entry.name}: its files hold no rows; expected telemetry from {', '.join(p.file.name for p in parts[:5])}"
        )
    if entry.snap_s == 0:
        _check_grid(counts, entry)
    found = pl.concat([s for _, s in looks]).unique().to_list()
    return Axes(_sites(found, layout, entry), _extents(counts, cadence_ms, entry), cadence_ms)


def _look(part: Part, entry: Entry, cadence_ms: int) -> tuple[pl.DataFrame, pl.Series]:
    """(per segment and offset from the grid: rows, first and last time, an example; the sites)."""
    import polars as pl

    frame = prepared(part, entry)
    counts = frame.group_by(SEGMENT, (pl.col(TIME) % cadence_ms).alias("phase")).agg(
        pl.len().alias("count"),
        pl.col(TIME).min().alias("first"),
        pl.col(TIME).max().alias("last"),
        pl.col(SITE).first().alias("example"),
        pl.col(SITE).null_count().alias("nameless"),
        pl.lit(part.file.name).alias("file"),
    )
    with explained(part.file):
        seen, sites = pl.collect_all([counts, frame.select(pl.col(SITE).unique())], engine="streaming")
    if bad := int(seen.filter(pl.col("phase").is_null())["count"].sum()) + int(seen["nameless"].sum()):
        raise FormatError(
            f"{part.file}: {bad} rows have no time or no site; remove them, or name the right columns in the catalogue"
        )
    return seen, sites.to_series()


def _check_grid(counts: pl.DataFrame, entry: Entry) -> None:
    """Every time stamp of a segment must lie a whole number of intervals from the others."""
    import polars as pl

    for (segment,), group in counts.group_by(SEGMENT, maintain_order=True):
        totals = group.group_by("phase").agg(pl.col("count").sum()).sort("count", "phase", descending=[True, False])
        stray = group.filter(pl.col("phase") != totals["phase"][0]).sort("file", "first")
        if stray.is_empty():
            continue
        one: dict[str, Any] = stray.row(0, named=True)
        where = "" if segment == WHOLE else f" in segment {segment}"
        raise FormatError(
            f"mixed cadence{where}: site {one['example']} has {when(one['first'], entry)} in {one['file']}, which is off the "
            f"{entry.cadence_s:g} s grid of most rows; {stray['count'].sum()} of {group['count'].sum()} are. Correct cadence_s, "
            f"set snap_s if the clock jitters, or drop the site (drop_sites)"
        )


def _extents(counts: pl.DataFrame, cadence_ms: int, entry: Entry) -> tuple[Extent, ...]:
    import polars as pl

    spans = counts.group_by(SEGMENT).agg(pl.col("first").min(), pl.col("last").max()).sort("first", SEGMENT)
    if entry.clock == "utc" and spans.height > 1:
        raise FormatError(f"{entry.name}: segments need `clock: relative`; found {', '.join(spans[SEGMENT].to_list())}")
    extents, row = [], 0
    for name, first, last in spans.iter_rows():
        rows = round((last - first) / cadence_ms) + 1
        extents.append(Extent(name, int(first), row, rows))
        row += rows
    return tuple(extents)


def _sites(found: list[str], layout: Layout, entry: Entry) -> tuple[str, ...]:
    if layout.sites is None:
        return tuple(sorted(found, key=natural))
    known = tuple(s for s in layout.sites if s not in entry.drop_sites)
    if strangers := sorted(set(found) - set(known), key=natural):
        raise FormatError(
            f"{entry.name}: sites {', '.join(strangers[:5])} ({len(strangers)}) are not among its {len(known)} known ones"
        )
    return known


def natural(site: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that counts: cell 2 before cell 10."""
    pieces = re.split(r"(\d+)", site)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in pieces)
