"""What is usual for a site at an hour of the day: median, spread and lower quartile, from the past alone.

Time is cut into weeks since the first row. A week is judged by the two weeks before it, the first week by itself; so what a
week is told about its values never changes when later weeks arrive, and the first week's is settled once it is complete.
Median and MAD (median absolute deviation): Leys et al., Journal of Experimental Social Psychology 49(4), 2013.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

WEEK_S = 7 * 86_400
MIN_SAMPLES = 5  # fewer values than this at an hour say nothing
MAD_TO_SIGMA = 1.4826  # of a normal distribution
LEAST_SPREAD = 0.05  # of the median: steadier sites are not flagged for small steps


@dataclass(frozen=True)
class Usual:
    """(24, sites) each, NaN where too few values are known."""

    median: np.ndarray
    spread: np.ndarray  # robust standard deviation
    quartile: np.ndarray  # lower


def weeks(rows: int, cadence_s: float) -> Iterator[tuple[slice, slice]]:
    """(rows of a week, rows it is judged by)."""
    length = max(1, int(WEEK_S // cadence_s))
    for start in range(0, rows, length):
        past = slice(max(0, start - 2 * length), start) if start else slice(0, min(length, rows))
        yield slice(start, min(start + length, rows)), past


def usual(values: np.ndarray, hours: np.ndarray) -> Usual:
    """Statistics of (rows, sites) values by hour of day; `hours`: (rows,) 0-23."""
    sites = values.shape[1]
    there, samples = _by_hour(values, hours)
    found = [np.full((24, sites), np.nan, np.float32) for _ in range(3)]
    for whole, some in zip(found, _robust(samples.reshape(-1, samples.shape[2])), strict=True):
        whole[there] = some.reshape(-1, sites)
    return Usual(*found)


def _by_hour(values: np.ndarray, hours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hours that occur, their samples (hours, sites, n); NaN where an hour has fewer than the others)."""
    there, counts = np.unique(hours, return_counts=True)
    rows = np.full((len(there), counts.max()), len(values))  # of the row of NaN that is added below
    order = np.argsort(hours, kind="stable")
    rows[np.arange(rows.shape[1]) < counts[:, None]] = order
    padded = np.concatenate([values, np.full((1, values.shape[1]), np.nan, np.float32)])
    return there, np.ascontiguousarray(padded[rows].transpose(0, 2, 1))


def _robust(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of (sites, n) samples: median, spread and lower quartile (sites,). Sorts in place; NaN sort to the end."""
    samples.sort(axis=1)
    count = samples.shape[1] - np.isnan(samples).sum(axis=1)
    median, quartile = _middle(samples, count), _at(samples, (count - 1) // 4)
    samples -= median[:, None]
    np.abs(samples, out=samples)
    samples.sort(axis=1)
    spread = np.maximum(MAD_TO_SIGMA * _middle(samples, count), LEAST_SPREAD * np.abs(median))
    few = count < MIN_SAMPLES
    unknown = np.float32(np.nan)
    return np.where(few, unknown, median), np.where(few, unknown, spread), np.where(few, unknown, quartile)


def _middle(ordered: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.asarray((_at(ordered, (count - 1) // 2) + _at(ordered, count // 2)) / 2)


def _at(ordered: np.ndarray, position: np.ndarray) -> np.ndarray:
    place = np.clip(position, 0, ordered.shape[1] - 1)
    return np.take_along_axis(ordered, place[:, None], axis=1)[:, 0]
