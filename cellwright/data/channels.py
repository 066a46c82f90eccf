"""Channels of x by name: what the panel measured, and what is derived from it or joined to it by time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from cellwright.data import exogenous, neighbours
from cellwright.panel import Panel

if TYPE_CHECKING:
    from models._contract import Problem

VALID = "valid"  # channel of patches: 1 where the node lies on the grid and all its targets are there

_derived: WeakKeyDictionary[Panel, dict[tuple[object, ...], np.ndarray]] = WeakKeyDictionary()  # made once a panel


def needed(problem: Problem) -> list[str]:
    """Channels that are columns of their own: neither lags, which are rows of another, nor `valid`."""
    return [name for name in problem.features if name != VALID and "@" not in name]


def measured(problem: Problem) -> list[str]:
    """Those that the panel itself holds."""
    joined = {exogenous.channel(spec) for spec in problem.exogenous}
    return [name for name in needed(problem) if neighbours.MARK not in name and name not in joined]


def joined(problem: Problem, name: str) -> str | None:
    """The source of a channel that is joined by time; None: it is none."""
    return next((spec for spec in problem.exogenous if exogenous.channel(spec) == name), None)


def values(panel: Panel, problem: Problem, name: str) -> np.ndarray:
    """(rows, sites) float32 of a channel, NaN where nothing is known. Joined series are the same for every site: a view.

    Raises:
        UnknownName: a feature that the panel lacks.
        DataError, ParamsError: as `neighbours.table_of` and `exogenous.values`.
    """
    schema, kept = panel.schema, _derived.setdefault(panel, {})
    if spec := joined(problem, name):
        if (spec,) not in kept:
            kept[spec,] = exogenous.values(spec, panel.times_ms(), schema.clock)
        return np.broadcast_to(kept[spec,][:, None], (schema.rows, len(schema.sites)))
    if neighbours.MARK in name:
        key = (name, problem.nearest)
        table = neighbours.table_of(problem, schema)
        if key not in kept and table is not None:
            kept[key] = neighbours.means(panel.values(name.partition(neighbours.MARK)[0]), table)
        return kept[key]
    return panel.values(name)


def good(panel: Panel, problem: Problem, name: str) -> np.ndarray:
    """(rows, sites) bool: really measured, or derived from what was."""
    if joined(problem, name) or neighbours.MARK in name:
        found: np.ndarray = ~np.isnan(values(panel, problem, name))
        return found
    return panel.good(name)
