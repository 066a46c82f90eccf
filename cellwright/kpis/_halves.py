"""A panel cut into two halves of its sites."""

from __future__ import annotations

import numpy as np

from cellwright.errors import TrainingError
from cellwright.panel import Panel, PanelSchema


def halves(panel: Panel) -> tuple[Panel, Panel]:
    """The left and the right columns of a grid; its upper and lower rows if it has one column; else the first and the second sites.

    Raises:
        TrainingError: there is one site alone.
    """
    schema = panel.schema
    count = len(schema.sites)
    if count < 2:
        raise TrainingError("there is one site alone: it has no other half")
    if schema.grid is None:
        return part(panel, np.arange(count // 2), None), part(panel, np.arange(count // 2, count), None)
    places = np.arange(count).reshape(schema.grid)
    pieces = np.array_split(places, 2, axis=1 if schema.grid[1] > 1 else 0)
    left, right = (part(panel, p.reshape(-1), (p.shape[0], p.shape[1])) for p in pieces)
    return left, right


def part(panel: Panel, sites: np.ndarray, grid: tuple[int, int] | None) -> Panel:
    """The sites of these positions alone, as they lie on their own grid."""
    names = [f.name for f in panel.schema.features]
    values = {name: panel.values(name)[:, sites] for name in names}
    return Panel.from_arrays(_schema(panel.schema, sites, grid), values, {name: panel.flags(name)[:, sites] for name in names})


def _schema(schema: PanelSchema, sites: np.ndarray, grid: tuple[int, int] | None) -> PanelSchema:
    place = {int(old): new for new, old in enumerate(sites)}
    joined = schema.adjacency and tuple((place[a], place[b], w) for a, b, w in schema.adjacency if a in place and b in place)
    points = schema.coordinates and tuple(schema.coordinates[i] for i in sites)
    update = {"sites": tuple(schema.sites[i] for i in sites), "grid": grid, "adjacency": joined, "coordinates": points}
    return schema.model_copy(update=update)
