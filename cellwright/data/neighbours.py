"""Neighbours: the mean of the nearest sites, as one more channel of x, `traffic~8` for the eight nearest.

Nearest by position, where the data set says positions: by squares on its grid, else by its coordinates (straight, in their own
unit; of equals the first in the order of the sites). Without positions, those whose first target correlates most with the site's
over the training rows; this table is part of the trained problem.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cellwright.errors import DataError, ParamsError

if TYPE_CHECKING:
    from cellwright.panel import Panel, PanelSchema
    from models._contract import Problem

MARK = "~"  # of the channel's name

_SITES_AT_ONCE = 256  # bounds the table of distances


def channel(target: str, count: int) -> str:
    """Name of the mean of the `count` nearest sites."""
    return f"{target}{MARK}{count}"


def count_of(features: tuple[str, ...]) -> int:
    """How many neighbours the channels of a problem are means of; 0: it has none."""
    return next((int(name.partition(MARK)[2]) for name in features if MARK in name), 0)


def check(count: int, sites: int) -> None:
    """Whether there are as many neighbours.

    Raises:
        ParamsError: fewer.
    """
    if count >= sites:
        raise ParamsError(f"problem.neighbours is {count}, but a site has {sites - 1} others beside it; lower it, or set it to 0")


def settled(problem: Problem, panel: Panel, rows: tuple[int, int], earlier: Problem | None = None) -> Problem:
    """The problem with the neighbours that correlation finds in rows [start, stop), where positions do not tell them.

    `earlier`: a problem of the same sites whose neighbours are kept.
    """
    count, schema = count_of(problem.features), panel.schema
    if not count or positions(schema) is not None or problem.nearest:
        return problem
    if earlier is not None and len(earlier.nearest) == count * len(schema.sites):
        return replace(problem, nearest=earlier.nearest)
    name = problem.targets[0]
    values = np.where(panel.good(name)[slice(*rows)], panel.values(name)[slice(*rows)], np.nan)
    return replace(problem, nearest=tuple(most_alike(values, count).flatten().tolist()))


def table_of(problem: Problem, schema: PanelSchema) -> np.ndarray | None:
    """(sites, count) int64: the neighbours of each site, nearest first; None: the problem has no such channel.

    Raises:
        DataError: neighbours found by correlation, of other sites than these or not found yet.
    """
    count = count_of(problem.features)
    if not count:
        return None
    places = positions(schema)
    if places is not None:
        return nearest(places, count)
    if len(problem.nearest) != count * len(schema.sites):
        raise DataError(
            f"the {count} nearest of {len(schema.sites)} sites of '{schema.dataset}' are not known: it has no positions, and those "
            f"found by correlation in training are of {len(problem.nearest) // count} sites; use a model trained on these sites"
        )
    return np.array(problem.nearest, dtype=np.int64).reshape(-1, count)


def positions(schema: PanelSchema) -> np.ndarray | None:
    """(sites, 2) float64, or None where the data set says none."""
    if schema.grid is not None:
        return np.stack(np.divmod(np.arange(len(schema.sites)), schema.grid[1]), axis=1).astype(np.float64)
    return None if schema.coordinates is None else np.array(schema.coordinates, dtype=np.float64)


def nearest(places: np.ndarray, count: int) -> np.ndarray:
    """(sites, count) int64: of each place the nearest others, nearest first."""
    parts = []
    for first in range(0, len(places), _SITES_AT_ONCE):
        some = places[first : first + _SITES_AT_ONCE]
        distance = ((some[:, None] - places[None]) ** 2).sum(axis=2)
        distance[np.arange(len(some)), first + np.arange(len(some))] = np.inf
        parts.append(_least(distance, count))
    return np.concatenate(parts)


def most_alike(values: np.ndarray, count: int) -> np.ndarray:
    """(sites, count) int64: of each column of `values` (rows, sites; NaN: not measured) those that correlate most with it.

    A value that is missing counts as its site's mean; a site that never changes correlates with none.
    """
    seen = ~np.isnan(values)
    mean = np.where(seen, values, 0).sum(axis=0, dtype=np.float64) / np.maximum(seen.sum(axis=0), 1)
    centred = np.where(seen, values - mean, 0.0)
    length = np.sqrt((centred**2).sum(axis=0))
    unit = centred / np.where(length > 0, length, 1.0)
    parts = []
    for first in range(0, unit.shape[1], _SITES_AT_ONCE):
        unlike = -(unit[:, first : first + _SITES_AT_ONCE].T @ unit)
        unlike[np.arange(len(unlike)), first + np.arange(len(unlike))] = np.inf
        parts.append(_least(unlike, count))
    return np.concatenate(parts)


def _least(cost: np.ndarray, count: int) -> np.ndarray:
    """(rows, count): columns of the least values of each row, least first; of equals the first."""
    return np.argsort(cost, axis=1, kind="stable")[:, :count].astype(np.int64)


def means(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(rows, sites) float32: mean of the measured values of each site's neighbours; NaN where none was measured.

    `values`: (rows, all sites), NaN: not measured. The sum is taken neighbour by neighbour, so that an edge that has a few of the
    sites gets the same bits.
    """
    total = np.zeros((len(values), len(table)))
    seen = np.zeros(total.shape, dtype=np.int64)
    for column in table.T:
        found = values[:, column]
        measured = ~np.isnan(found)
        total += np.where(measured, found, 0.0)
        seen += measured
    return np.where(seen > 0, total / np.maximum(seen, 1), np.nan).astype(np.float32)
