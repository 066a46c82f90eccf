"""Lines of all candidates: test error by step ahead, and validation loss by epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from html import escape
from typing import Any

from cellwright.report.palette import MUTED, Look
from cellwright.report.record import Candidate, Record
from cellwright.report.style import Figure, figure, line, rounded
from cellwright.report.words import exact

FAR = 1.3  # times the median MAE: beyond it a candidate would press the others together


def far_mae(record: Record) -> float:
    """Test MAE above which a candidate is left out of a chart's range."""
    known = [row.kpis["mae"] for row in record.board.rows if row.kpis.get("mae") is not None]
    return FAR * statistics.median(v for v in known if v is not None) if known else float("inf")


def is_far(record: Record, candidate: Candidate) -> bool:
    """Whether a candidate lies far above the others."""
    mae = candidate.row.kpis.get("mae") if candidate.row is not None else None
    return mae is not None and mae > far_mae(record)


def error_by_step(record: Record, looks: Mapping[str, Look]) -> Figure:
    """Test MAE of each forecast step; far candidates wait in the legend for a click."""
    steps = list(range(1, record.board.horizon + 1))
    data = []
    for c in record.candidates:
        if c.scored is not None:
            shown = {"visible": "legendonly"} if is_far(record, c) else {}
            values = rounded(c.scored.mae_by_step)
            data.append({**line(c, looks[c.key]), "x": steps, "y": values, "mode": "lines+markers", **shown})
    ticks = {"dtick": 1} if record.board.horizon <= 24 else {}
    x = {"title": f"Step ahead ({exact(record.schema.cadence_s, 's')} each)", **ticks}
    return figure(data, x=x, y={"title": f"MAE ({escape(record.board.unit)})"}, height=440, **_noise_floor(record))


def training_curves(record: Record, looks: Mapping[str, Look]) -> Figure | None:
    """Validation loss by epoch; None where every candidate has a closed form."""
    data = []
    for c in record.candidates:
        points = [(e["epoch"], e["validation_loss"]) for e in c.history if e.get("validation_loss") is not None]
        if points:
            epochs, losses = zip(*points, strict=True)
            mode = "lines+markers" if len(points) < 4 else "lines"
            data.append({**line(c, looks[c.key]), "x": list(epochs), "y": rounded(losses), "mode": mode})
    if not data:
        return None
    y = {"title": "Validation loss (scaled units, log)", "type": "log", "nticks": 8}
    return figure(data, x={"title": "Epoch", "rangemode": "tozero"}, y=y)


def _noise_floor(record: Record) -> dict[str, Any]:
    """A level that nothing can be below on average, where it is known."""
    if not record.board.noise_floor:
        return {}
    value = statistics.fmean(record.board.noise_floor.values())
    rule = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value}
    label = {
        "xref": "paper",
        "x": 1,
        "y": value,
        "text": "noise floor of the data",
        "showarrow": False,
        "yshift": 10,
        "xanchor": "right",
    }
    return {
        "shapes": [{**rule, "line": {"color": MUTED, "dash": "dot", "width": 1}}],
        "annotations": [{**label, "font": {"size": 12, "color": MUTED}}],
    }
