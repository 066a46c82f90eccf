"""Runs along time: gaps that are filled or masked, zeros that are outages, and a cadence that is not the catalogue's.

All arrays are (rows, sites); `edges` are the rows at which segments begin, plus the end: no run crosses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def run_lengths(mask: np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """(rows, sites) int32: for each True the length of the run it is part of, 0 elsewhere."""
    out = np.zeros(mask.shape, np.int32)
    for start, stop in pairwise(edges):
        part = mask[start:stop]
        if part.any():
            last, after = _bounds(part)
            out[start:stop] = np.where(part, after - last - 1, 0)
    return out


def _bounds(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every place the last False row at or before it (-1: none) and the first at or after it (rows: none)."""
    rows = len(mask)
    index = np.arange(rows, dtype=np.int32)[:, None]
    last = np.maximum.accumulate(np.where(mask, np.int32(-1), index), axis=0)
    after = np.minimum.accumulate(np.where(mask, np.int32(rows), index)[::-1], axis=0)[::-1]
    return last, after


def fill_short(values: np.ndarray, edges: Sequence[int], max_gap: int) -> np.ndarray:
    """Fill gaps (NaN) of at most `max_gap` intervals, in place, with the last value before them.

    Returns:
        (rows, sites) bool: what was filled. A gap at a segment's beginning has nothing before it and stays.
    """
    filled = np.zeros(values.shape, bool)
    for start, stop in pairwise(edges):
        part = values[start:stop]
        gap = np.isnan(part)
        if max_gap == 0 or not gap.any():
            continue
        last, after = _bounds(gap)
        short = gap & (last >= 0) & (after - last - 1 <= max_gap)
        row, site = np.nonzero(short)
        part[row, site] = part[last[row, site], site]
        filled[start:stop] = short
    return filled


def other_cadence(seen: np.ndarray, edges: Sequence[int], window: int) -> tuple[int, int, int] | None:
    """Find a stretch in which a site reports at a steady multiple of the cadence.

    `window` intervals are looked at together; at least four readings, all the same number (> 1) of intervals apart, are
    a cadence of its own and not a gap.

    Returns:
        (row, site, intervals between its readings) of the first such stretch, or None.
    """
    for begin, end in pairwise(edges):
        for start in range(begin, end, window):
            part = seen[start : min(start + window, end)]
            lonely = ~(part[1:] & part[:-1]).any(axis=0) & (part.sum(axis=0) >= 4)
            for site in np.flatnonzero(lonely):
                rows = np.flatnonzero(part[:, site])
                steps = np.diff(rows)
                if (steps == steps[0]).all():
                    return start + int(rows[0]), int(site), int(steps[0])
    return None
