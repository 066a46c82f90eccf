"""The house's style of a chart, as Plotly's JSON. Every name in a chart is escaped: Plotly reads a little HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cellwright.report.palette import FONT, GRID, INK, MUTED, Look
from cellwright.report.record import Candidate

Figure = dict[str, Any]  # {"data": traces, "layout": layout}
LEGEND: dict[str, Any] = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}}  # above the chart


def figure(data: list[dict[str, Any]], *, x: Mapping[str, Any], y: Mapping[str, Any], height: int = 380, **layout: Any) -> Figure:
    """A chart in the house's style; `x` and `y` are settings of the axes."""
    base = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "height": height,
        "margin": {"l": 8, "r": 16, "t": 16, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#c5ccd3", "font": {"family": FONT, "color": INK}},
        "legend": LEGEND,
        "xaxis": axis(x),
        "yaxis": axis(y),
    }
    return {"data": data, "layout": {**base, **layout}}


def axis(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An axis in the house's style; for those that a chart has beside `x` and `y`."""
    style = {
        "gridcolor": GRID,
        "linecolor": "#c5ccd3",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "#c5ccd3",
        "automargin": True,
        "title": {"font": {"color": MUTED}},
    }
    return {**style, **_titled(settings)}


def line(candidate: Candidate, look: Look) -> dict[str, Any]:
    """A trace of a candidate's line, without its values."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(candidate.title),
        "line": {"color": look.colour, "dash": look.dash, "width": look.width},
        "marker": {"color": look.colour, "size": 6},
        "hovertemplate": "%{fullData.name}: %{y:.4g}<extra></extra>",
    }


def rounded(values: Sequence[float | None], digits: int = 5) -> list[float | None]:
    """Fewer digits than a float has: a page is to be small."""
    return [None if v is None or not math.isfinite(v) else float(f"{v:.{digits}g}") for v in values]


def _titled(axis: Mapping[str, Any]) -> dict[str, Any]:
    title = axis.get("title")
    return {**axis, **({"title": {"text": title, "font": {"color": MUTED, "size": 13}}} if isinstance(title, str) else {})}
