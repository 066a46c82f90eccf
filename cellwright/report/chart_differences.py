"""Forest plot: paired differences of the choice to every other candidate, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from cellwright.params import Params
from cellwright.ranking.pairs import Pairs
from cellwright.report.chart_lines import is_far
from cellwright.report.palette import CHAMPION, INK
from cellwright.report.record import Record
from cellwright.report.style import Figure, figure, rounded
from cellwright.report.words import number
from cellwright.results import Interval
from cellwright.workspace import Workspace

_TEST_COLOUR = "#8a97a3"


def differences(params: Params, ws: Workspace, record: Record) -> Figure | None:
    """MAE of the choice minus each other's, with the paired interval, on both spans; far ones are left out. None where none is left."""
    others = [c.key for c in reversed(record.candidates) if c.row and c.key != record.champion.key and not is_far(record, c)]
    if not others:
        return None
    data = [
        _forest(record, _pairs(params, ws, record, others, "validation"), "validation span (decides)", CHAMPION, 0.16),
        _forest(record, _pairs(params, ws, record, others, "test"), "test span (read once)", _TEST_COLOUR, -0.16),
    ]
    title = f"MAE of {escape(record.champion.title)} minus the other's ({escape(record.board.unit)}); left of 0: it is better"
    ticks = {"tickvals": list(range(len(others))), "ticktext": [escape(record.candidate(key).title) for key in others]}
    y = {**ticks, "range": [-0.6, len(others) - 0.4], "showgrid": False}
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": INK, "width": 1}}
    return figure(data, x={"title": title}, y=y, height=120 + 40 * len(others), shapes=[zero])


def _pairs(params: Params, ws: Workspace, record: Record, others: Sequence[str], span: str) -> list[Interval]:
    mine = record.champion.key
    pairs = Pairs.of_run(params, ws, [mine, *others], span, record.schema.cadence_s)
    return [pairs(mine, other) for other in others]


def _forest(record: Record, pairs: Sequence[Interval], name: str, colour: str, shift: float) -> dict[str, Any]:
    told = [
        f"{escape(record.candidate(p.other).title)}, {name}<br>{number(p.difference)} [{number(p.low)}, {number(p.high)}]"
        f"{'<br>a tie' if p.tie else ''}<extra></extra>"
        for p in pairs
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rounded([p.difference for p in pairs]),
        "y": [i + shift for i in range(len(pairs))],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": rounded([p.high - p.difference for p in pairs]),
            "arrayminus": rounded([p.difference - p.low for p in pairs]),
            "color": colour,
            "thickness": 2,
            "width": 5,
        },
        "marker": {"color": colour, "size": 9, "symbol": ["circle-open" if p.tie else "circle" for p in pairs]},
        "hovertemplate": told,
    }
