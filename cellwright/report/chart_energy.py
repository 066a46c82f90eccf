"""Accuracy against energy: what a lower error costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from cellwright.report.chart_lines import far_mae
from cellwright.report.labels import offsets
from cellwright.report.palette import INK, Look
from cellwright.report.record import Candidate, Record
from cellwright.report.style import Figure, figure
from cellwright.report.words import number, quantity

ENERGY = "train_energy_j"
_WIDTH, _HEIGHT = 1000.0, 360.0  # pixels of the plotting area on a wide screen, for placing names


@dataclass(frozen=True)
class Spot:
    """A candidate in the chart. `spent`: J, or CPU-seconds where energy is not known of all."""

    candidate: Candidate
    spent: float
    mae: float
    shown: float  # mae, or the chart's edge where it lies beyond
    on_front: bool
    chosen: bool


def accuracy_against_energy(record: Record, looks: Mapping[str, Look]) -> Figure | None:
    """Test MAE against training energy (log), with the front; None where neither energy nor CPU time is known."""
    spots, unit = _spots(record)
    if not spots:
        return None
    x, y = _range([math.log10(s.spent) for s in spots]), _range([s.shown for s in spots])
    title = "Energy of training (J, log scale)" if unit == "J" else "CPU time of training (s, log scale)"
    return figure(
        [_front(spots), *(_point(record, s, looks[s.candidate.key], unit) for s in spots)],
        x={"title": title, "type": "log", "exponentformat": "SI", "dtick": 1, "range": x},
        y={"title": f"MAE ({escape(record.board.unit)}), test span", "range": y},
        height=440,
        showlegend=False,
        annotations=_names(spots, x, y),
    )


def _spots(record: Record) -> tuple[list[Spot], str]:
    """The candidates whose error and cost are known, and the unit of the cost."""
    ranked = [(c, c.row) for c in record.candidates if c.row is not None]
    metered = all(row.kpis.get(ENERGY) is not None for _, row in ranked)
    limit = far_mae(record)
    spots = []
    for c, row in ranked:
        spent = row.kpis.get(ENERGY) if metered else c.trained.cpu_s if c.trained else None
        mae = row.kpis.get("mae")
        if spent and mae is not None:
            spots.append(Spot(c, spent, mae, min(mae, limit), row.on_front, row.key == record.board.choice.key))
    return spots, "J" if metered else "s"


def _range(values: Sequence[float]) -> list[float]:
    margin = 0.08 * (max(values) - min(values)) or 0.5
    return [min(values) - margin, max(values) + 1.5 * margin]


def _point(record: Record, spot: Spot, look: Look, unit: str) -> dict[str, Any]:
    far = spot.shown < spot.mae
    symbol = "star" if spot.chosen else "triangle-up" if far else "circle"
    title = escape(spot.candidate.title)
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [spot.spent],
        "y": [spot.shown],
        "cliponaxis": False,
        "marker": {
            "color": look.colour,
            "size": 17 if spot.chosen else 11,
            "symbol": symbol if spot.on_front or spot.chosen else f"{symbol}-open",
            "line": {"width": 1.5, "color": look.colour},
        },
        "hovertemplate": f"{title}<br>MAE {number(spot.mae)} {escape(record.board.unit)}<br>{quantity(spot.spent, unit)}<extra></extra>",
    }


def _front(spots: Sequence[Spot]) -> dict[str, Any]:
    """The lower left edge of (cost, MAE), as steps."""
    best, edge = float("inf"), []
    for spot in sorted(spots, key=lambda s: (s.spent, s.mae)):
        if spot.mae < best:
            best = spot.mae
            edge.append(spot)
    rule = {"color": "#9aa6b2", "dash": "dash", "width": 1.5, "shape": "hv"}
    x, y = [s.spent for s in edge], [s.shown for s in edge]
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": rule, "hoverinfo": "skip"}


def _names(spots: Sequence[Spot], x: Sequence[float], y: Sequence[float]) -> list[dict[str, Any]]:
    """A name beside each point, with a thin line to it where it had to give way; Plotly takes log10 on a log axis."""
    texts = [s.candidate.title + (f" ({number(s.mae)} ↑)" if s.shown < s.mae else "") for s in spots]
    places = [(math.log10(s.spent), s.shown) for s in spots]
    pixels = [((px - x[0]) / (x[1] - x[0]) * _WIDTH, (y[1] - py) / (y[1] - y[0]) * _HEIGHT) for px, py in places]
    around = offsets(pixels, texts, _WIDTH, _HEIGHT)
    return [
        {
            "x": px,
            "y": py,
            "ax": round(ax),
            "ay": round(ay),
            "text": f"<b>{escape(text)}</b>" if spot.chosen else escape(text),
            "font": {"size": 12, "color": INK},
            "arrowhead": 0,
            "arrowwidth": 0.7,
            "arrowcolor": "#9aa6b2",
            "standoff": 7,
        }
        for spot, text, (px, py), (ax, ay) in zip(spots, texts, places, around, strict=True)
    ]
