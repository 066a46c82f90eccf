"""From telemetry as it came to a Panel: regular in time, with flags, every repair counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellwright.catalogue import Entry
from cellwright.data.axes import Axes, survey
from cellwright.data.dense import Dense, Repeats, fill
from cellwright.data.flagging import Grid, flag, hours_of_day
from cellwright.data.gaps import other_cadence
from cellwright.data.readers._contract import Layout, Part
from cellwright.data.readers._tables import when
from cellwright.errors import FormatError
from cellwright.families import member
from cellwright.panel import Feature, Flag, Panel, PanelSchema, Segment
from cellwright.params import Normalise as Rules
from cellwright.results import FeatureCounts, Normalised

DAY_S = 86_400
LEAST_WINDOW = 24  # intervals: daily data has one a day


@dataclass(frozen=True)
class Built:
    """A panel in memory and what was done to make it."""

    panel: Panel
    report: Normalised


def build(entry: Entry, files: Sequence[Path], rules: Rules) -> Built:
    """Read `files` with the entry's reader and normalise them.

    Raises:
        FormatError: empty or corrupt files, wrong columns, mixed cadence, a site without any value of a target.
    """
    reader, options = member("cellwright.data.readers", entry.reader, what="reader"), entry.reader_options
    parts: list[Part] = reader.frames(sorted(files), entry, options)
    layout: Layout = reader.layout(sorted(files), entry, options) if hasattr(reader, "layout") else Layout()
    if not parts:
        raise FormatError(f"{entry.name}: no file to read; run ingest first, or correct `files` in the catalogue")
    axes = survey(parts, entry, layout)
    dense = fill(parts, axes, entry)
    _check_cadence(dense, axes, entry)
    _check_targets(dense, entry)
    schema = _schema(entry, axes, layout)
    flags = _flags(dense, schema, entry, rules)
    panel = Panel.from_arrays(schema, dense.values, flags)
    return Built(panel, _report(panel, dense.repeats, entry))


def _flags(dense: Dense, schema: PanelSchema, entry: Entry, rules: Rules) -> dict[str, np.ndarray]:
    relative = entry.clock == "relative"
    times = schema.start_ms + (np.arange(schema.rows) * schema.cadence_s * 1000).round().astype(np.int64)
    grid = Grid(_edges(dense.axes), hours_of_day(times, entry.timezone, relative=relative), entry.cadence_s)
    return {
        name: flag(dense.values[name], grid, rules, zero_is_outage=feature.zero_is_outage)
        for name, feature in entry.features.items()
    }


def _edges(axes: Axes) -> tuple[int, ...]:
    return (*(e.first_row for e in axes.extents), axes.rows)


def _check_cadence(dense: Dense, axes: Axes, entry: Entry) -> None:
    window = max(LEAST_WINDOW, round(DAY_S / entry.cadence_s))
    found = other_cadence(dense.seen, _edges(axes), window)
    if found is None:
        return
    row, site, step = found
    extent = next(e for e in reversed(axes.extents) if e.first_row <= row)
    moment = when(extent.start_ms + (row - extent.first_row) * axes.cadence_ms, entry)
    raise FormatError(
        f"mixed cadence: site {axes.sites[site]} reports every {step * entry.cadence_s:g} s from {moment} on, the catalogue says "
        f"{entry.cadence_s:g} s; correct cadence_s, or drop the site (drop_sites)"
    )


def _check_targets(dense: Dense, entry: Entry) -> None:
    """Every site needs values of every target."""
    for target in entry.targets:
        empty = np.flatnonzero(np.isnan(dense.values[target]).all(axis=0))
        if len(empty):
            names = ", ".join(dense.axes.sites[i] for i in empty[:5]) + (" …" if len(empty) > 5 else "")
            raise FormatError(
                f"{len(empty)} of {len(dense.axes.sites)} sites have no value of the target '{target}' in all "
                f"{dense.axes.rows} intervals: {names}. Correct the source, or leave them out with drop_sites in the catalogue"
            )


def _schema(entry: Entry, axes: Axes, layout: Layout) -> PanelSchema:
    whole = layout.sites is None or len(layout.sites) == len(axes.sites)
    places = layout.coordinates
    return PanelSchema(
        dataset=entry.name,
        sites=axes.sites,
        features=tuple(Feature(name=n, unit=f.unit, low=f.low, high=f.high) for n, f in entry.features.items()),
        targets=entry.targets,
        cadence_s=entry.cadence_s,
        clock=entry.clock,
        timezone=entry.timezone,
        start_ms=0 if entry.clock == "relative" else axes.extents[0].start_ms,
        rows=axes.rows,
        segments=tuple(Segment(name=e.name, start=e.first_row, stop=e.first_row + e.rows) for e in axes.extents),
        grid=layout.grid if whole else None,  # a grid with holes is none
        coordinates=None if places is None else tuple(places[s] for s in axes.sites),
        adjacency=layout.adjacency if whole else None,
        licence=entry.licence,
        attribution=entry.attribution,
        noise_floor=layout.noise_floor,
    )


def _report(panel: Panel, repeats: Repeats, entry: Entry) -> Normalised:
    schema = panel.schema
    relative, times = schema.clock == "relative", panel.times_ms()
    first, last = ("row 0", f"row {schema.rows - 1}") if relative else (when(int(times[i]), entry) for i in (0, -1))
    return Normalised(
        dataset=schema.dataset,
        rows=schema.rows,
        sites=len(schema.sites),
        segments=len(schema.segments),
        first=first,
        last=last,
        duplicates_equal=repeats.equal,
        duplicates_conflicting=repeats.conflicting,
        not_finite=repeats.not_finite,
        features={f.name: _counts(panel.flags(f.name)) for f in schema.features},
    )


def _counts(flags: np.ndarray) -> FeatureCounts:
    times = np.bincount(flags.reshape(-1), minlength=16)
    having = {bit: int(sum(n for mask, n in enumerate(times) if mask & bit)) for bit in Flag}
    return FeatureCounts(
        values=flags.size,
        filled=having[Flag.FILLED],
        masked=having[Flag.MISSING] - having[Flag.FILLED],
        outage=having[Flag.OUTAGE],
        outlier=having[Flag.OUTLIER],
    )
