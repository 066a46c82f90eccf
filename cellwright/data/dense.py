"""From long rows to dense (rows, sites) arrays: every value to its place, repeated rows counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cellwright.catalogue import Entry
from cellwright.data.axes import Axes, prepared
from cellwright.data.readers._contract import SEGMENT, SITE, TIME, Part
from cellwright.data.readers._tables import explained, when
from cellwright.errors import FormatError

if TYPE_CHECKING:
    import polars as pl

BATCH_ROWS = 2_000_000


@dataclass
class Repeats:
    """Rows that came more than once for a site and time."""

    equal: int = 0  # the same values again: dropped
    conflicting: int = 0  # other values: the last one counts
    not_finite: int = 0  # values that were ±infinity: missing


class Dense:
    """The arrays of a panel while they are filled: feature -> (rows, sites) float32, NaN where nothing came."""

    def __init__(self, axes: Axes, features: Sequence[str]) -> None:
        self.axes = axes
        self.values = {f: np.full((axes.rows, len(axes.sites)), np.nan, np.float32) for f in features}
        self.repeats = Repeats()
        self._seen: dict[tuple[str, ...], np.ndarray] = {}

    @property
    def seen(self) -> np.ndarray:
        """(rows, sites) bool: a row came for it, whatever it held."""
        marks = list(self._seen.values())
        return marks[0] if len(marks) == 1 else np.logical_or.reduce(marks)

    def place(self, rows: np.ndarray, sites: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Put one batch in its place. `rows`, `sites`: positions (n,); `columns`: feature -> values (n,)."""
        for feature, column in columns.items():
            columns[feature] = self._finite(column)
        names = tuple(columns)
        seen = self._seen.setdefault(names, np.zeros((self.axes.rows, len(self.axes.sites)), bool)).reshape(-1)
        places = rows * len(self.axes.sites) + sites
        low, high = int(places.min()), int(places.max()) + 1
        before = np.count_nonzero(seen[low:high])
        known = seen[places]
        seen[places] = True
        if np.count_nonzero(seen[low:high]) - before != len(places):
            places, columns = self._settle(places, columns, known)
        for feature, column in columns.items():
            self.values[feature].reshape(-1)[places] = column

    def _finite(self, column: np.ndarray) -> np.ndarray:
        endless = np.isinf(column)
        if not endless.any():
            return column
        self.repeats.not_finite += int(endless.sum())
        return np.where(endless, np.float32(np.nan), column)

    def _settle(
        self, places: np.ndarray, columns: dict[str, np.ndarray], known: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Count repeats and keep the last row of each place."""
        order = np.argsort(places, kind="stable")
        places, known = places[order], known[order]
        columns = {f: c[order] for f, c in columns.items()}
        first = np.r_[True, places[1:] != places[:-1]]
        same = np.ones(len(places), bool)
        for feature, column in columns.items():
            previous = np.r_[np.float32(np.nan), column[:-1]]
            previous[first] = self.values[feature].reshape(-1)[places[first]]
            same &= (column == previous) | (np.isnan(column) & np.isnan(previous))
        repeated = ~first | known
        self.repeats.equal += int(np.count_nonzero(repeated & same))
        self.repeats.conflicting += int(np.count_nonzero(repeated & ~same))
        last = np.r_[places[1:] != places[:-1], True]
        return places[last], {f: c[last] for f, c in columns.items()}


def fill(parts: Sequence[Part], axes: Axes, entry: Entry) -> Dense:
    """Read every part and put its values in their places.

    Raises:
        FormatError: a file is corrupt, or a time lies further from its interval's start than `snap_s`.
    """
    dense = Dense(axes, list(entry.features))
    for part in parts:
        for batch in _batches(part, entry):
            rows = _rows(batch, axes, entry, part)
            sites = _positions(batch[SITE], axes.sites)
            named = [c for c in batch.columns if c not in (TIME, SITE, SEGMENT)]
            dense.place(rows, sites, {c: batch[c].to_numpy() for c in named})
    return dense


def _batches(part: Part, entry: Entry) -> Iterator[pl.DataFrame]:
    with explained(part.file):
        batches = prepared(part, entry).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, engine="streaming")
        yield from (b for b in batches if b.height)


def _positions(names: pl.Series, order: Sequence[str]) -> np.ndarray:
    import polars as pl

    return names.cast(pl.Enum(list(order))).to_physical().to_numpy().astype(np.int64)


def _rows(batch: pl.DataFrame, axes: Axes, entry: Entry, part: Part) -> np.ndarray:
    """(n,) int64: the row of each time stamp."""
    starts = np.array([e.start_ms for e in axes.extents])
    firsts = np.array([e.first_row for e in axes.extents])
    times = batch[TIME].to_numpy()
    if len(starts) == 1:
        since, first = times - starts[0], firsts[0]
    else:
        segment = _positions(batch[SEGMENT], [e.name for e in axes.extents])
        since, first = times - starts[segment], firsts[segment]
    rows = (since + axes.cadence_ms // 2) // axes.cadence_ms
    off = np.abs(since - rows * axes.cadence_ms)
    if (far := int(off.argmax())) >= 0 and off[far] > entry.snap_s * 1000:
        raise FormatError(
            f"{part.file}: site {batch[SITE][far]} has {when(int(times[far]), entry)}, {off[far] / 1000:g} s from its interval's "
            f"start, at most {entry.snap_s:g} s allowed (snap_s); raise it or correct cadence_s ({entry.cadence_s:g} s)"
        )
    return np.asarray(rows + first)
