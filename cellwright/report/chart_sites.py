"""Test error by site: a map for grids, points for coordinates, bars else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from cellwright.panel import PanelSchema
from cellwright.report.palette import CHAMPION, INK
from cellwright.report.record import Candidate, Record
from cellwright.report.style import Figure, figure, rounded


def error_by_site(record: Record) -> list[tuple[str, Figure]]:
    """Test MAE by site: of the choice, of ridge, and the difference of the two. (label, chart) each."""
    mine = _by_site(record.champion)
    ridge = next((c for c in record.candidates if c.key == "ridge" and c.key != record.champion.key), None)
    base = _by_site(ridge) if ridge else None
    if mine is None:
        return []
    layers = [(record.champion.title, mine, False)]
    if ridge is not None and base is not None:
        gain = [None if a is None or b is None else a - b for a, b in zip(mine, base, strict=True)]
        layers += [(ridge.title, base, False), (f"{record.champion.title} minus {ridge.title}", gain, True)]
    shared = [v for _, values, signed in layers if not signed for v in values if v is not None]
    span = (min(shared, default=0.0), max(shared, default=1.0))
    return [(label, _sites(record, values, signed, span)) for label, values, signed in layers]


def _by_site(candidate: Candidate) -> list[float | None] | None:
    return candidate.scored.mae_by_site if candidate.scored is not None else None


def _sites(record: Record, values: Sequence[float | None], signed: bool, span: tuple[float, float]) -> Figure:
    schema = record.schema
    scale = _scale(values, signed, span, f"MAE<br>({escape(record.board.unit)})")
    if schema.grid is not None:
        return _heat(schema, values, scale)
    if schema.coordinates is not None:
        return _dots(schema, values, scale)
    return _bars(schema, values, f"MAE ({escape(record.board.unit)})")


def _scale(values: Sequence[float | None], signed: bool, span: tuple[float, float], title: str) -> dict[str, Any]:
    """Light is good; signed: blue is better than ridge, orange worse, white the same."""
    bar = {"title": {"text": title, "font": {"size": 12}}, "thickness": 12, "outlinewidth": 0}
    if not signed:
        return {
            "colorscale": [[0, "#f2f7fb"], [0.5, "#6aaed6"], [1, "#08306b"]],
            "cmin": span[0],
            "cmax": span[1],
            "colorbar": bar,
        }
    reach = max((abs(v) for v in values if v is not None), default=1.0) or 1.0
    colours = [[0, "#0072b2"], [0.5, "#f7f7f7"], [1, "#d55e00"]]
    return {"colorscale": colours, "cmin": -reach, "cmax": reach, "colorbar": bar}


def _heat(schema: PanelSchema, values: Sequence[float | None], scale: dict[str, Any]) -> Figure:
    rows, columns = schema.grid or (0, 0)
    cells, names = rounded(values, 4), [escape(site) for site in schema.sites]
    trace = {
        "type": "heatmap",
        "z": [cells[r * columns : (r + 1) * columns] for r in range(rows)],
        "customdata": [names[r * columns : (r + 1) * columns] for r in range(rows)],
        "hovertemplate": "%{customdata}: %{z:.4g}<extra></extra>",
        "xgap": 1,
        "ygap": 1,
        "zmin": scale.pop("cmin"),
        "zmax": scale.pop("cmax"),
        **scale,
    }
    x = {"title": "column", "showgrid": False, "constrain": "domain"}
    y = {"title": "row", "showgrid": False, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"}
    return figure([trace], x=x, y=y, height=440)


def _dots(schema: PanelSchema, values: Sequence[float | None], scale: dict[str, Any]) -> Figure:
    x, y = zip(*(schema.coordinates or ()), strict=True)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "text": [escape(site) for site in schema.sites],
        "customdata": rounded(values, 4),
        "marker": {"size": 11, "color": rounded(values, 4), "line": {"width": 0.5, "color": INK}, "showscale": True, **scale},
        "hovertemplate": "%{text}: %{customdata:.4g}<extra></extra>",
    }
    return figure([trace], x={"title": "x"}, y={"title": "y", "scaleanchor": "x"}, height=440)


def _bars(schema: PanelSchema, values: Sequence[float | None], title: str) -> Figure:
    """Sites from the largest error to the smallest, at most 60 of them."""
    ranked = sorted(((v, s) for v, s in zip(values, schema.sites, strict=True) if v is not None), reverse=True)[:60]
    trace = {
        "type": "bar",
        "x": [escape(site) for _, site in ranked],
        "y": rounded([v for v, _ in ranked], 4),
        "marker": {"color": CHAMPION},
        "hovertemplate": "%{x}: %{y:.4g}<extra></extra>",
    }
    return figure([trace], x={"type": "category", "showgrid": False}, y={"title": title})
