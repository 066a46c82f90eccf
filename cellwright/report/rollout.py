"""The rollout section of the report: how the version came into use, or was taken back, and what the guards saw.

It is there where the run's bundle had a rollout, and tells how that stands when the page is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

import numpy as np

from cellwright.bundle import store
from cellwright.edge.evidence import Evidence
from cellwright.lifecycle.rollout.record import Files, Rolling
from cellwright.report.palette import CHAMPION, INK, MUTED, RIDGE
from cellwright.report.style import Figure, figure, rounded
from cellwright.report.words import number, quantity
from cellwright.results import Registered
from cellwright.workspace import Workspace

_WORDS = {"running": "under way", "promoted": "promoted", "rolled_back": "taken back"}
_VERDICTS = {"worse": "worse, proven", "as_good": "as good, proven", "undecided": "undecided"}
_GUARDS = {"error": "Forecast error", "failures": "Failed requests", "latency": "Late answers", "energy": "Energy a forecast"}
_MOST_POINTS = 400


@dataclass(frozen=True)
class Guarded:
    """A guard's row."""

    title: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Moment:
    """An event's row."""

    time: str
    weight: str
    what: str


@dataclass(frozen=True)
class View:
    """What the template shows."""

    title: str
    sentence: str
    facts: tuple[tuple[str, str], ...]
    guards: tuple[Guarded, ...]
    moments: tuple[Moment, ...]
    waiting: tuple[tuple[str, str], ...]
    charts: dict[str, Figure | None]  # "rollout-weights", "rollout-errors"


def view(ws: Workspace) -> View | None:
    """The rollout of the run's own version; None: it had none.

    Raises:
        CellwrightError: its files are damaged.
    """
    if not ws.registration.is_file():
        return None
    registered = Registered.read(ws.registration)
    files = Files(ws.rollouts, store.bundle_name(registered.model_name))
    if registered.semantic is None or not files.document.is_file():
        return None
    rolling = files.read()
    if rolling.state.challenger.partition("+")[0] != registered.semantic:
        return None  # of another version
    return of(rolling, files.evidence())


def of(rolling: Rolling, seen: Sequence[Evidence]) -> View:
    """What there is to be shown of a rollout."""
    state = rolling.state
    return View(
        title=f"{state.challenger} in place of {state.champion}",
        sentence=f"{state.model}: {_WORDS[state.outcome]}. {state.events[-1].what}.",
        facts=tuple(_facts(rolling, seen)),
        guards=tuple(Guarded(_GUARDS.get(s.guard, s.guard), _VERDICTS[s.verdict], s.reason) for s in rolling.said),
        moments=tuple(Moment(_time(e.at_s), f"{e.weight:.0%}".replace("%", " %"), e.what) for e in state.events),
        waiting=tuple(rolling.waiting.items()),
        charts={"rollout-weights": _weights(rolling), "rollout-errors": _errors(rolling, seen)},
    )


def _facts(rolling: Rolling, seen: Sequence[Evidence]) -> list[tuple[str, str]]:
    state, params = rolling.state, rolling.params
    counts = [c for e in seen if (c := e.counts.get(state.challenger)) is not None]
    facts = [
        ("way", {"canary": "canary, in stages", "blue_green": "blue/green, at once", "direct": "directly"}[params.mode]),
        ("lasted", quantity(state.events[-1].at_s - state.started_s, "s")),
        ("edges", str(len({e.edge for e in seen}))),
    ]
    if counts:
        facts.append(("requests it answered", f"{sum(c.requests for c in counts):,}"))
        facts.append(("of them failed, late", f"{sum(c.failed for c in counts):,}, {sum(c.slow for c in counts):,}"))
    return [*facts, ("probability of a wrong verdict", number(params.alpha))]


def _weights(rolling: Rolling) -> Figure:
    """The challenger's share of the requests over time, as steps."""
    events = rolling.state.events
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "line": {"shape": "hv", "color": CHAMPION, "width": 2.5},
        "marker": {"color": CHAMPION, "size": 7},
        "name": escape(rolling.state.challenger),
        "x": [_time(e.at_s, digits="milliseconds") for e in events],
        "y": [100 * e.weight for e in events],
        "text": [escape(e.what) for e in events],
        "hovertemplate": "%{y:.0f} %: %{text}<extra></extra>",
    }
    y = {"title": "Share of the requests (%)", "range": [-4, 104]}
    return figure([trace], x={"title": "Time (UTC)"}, y=y, height=260, showlegend=False)


def _errors(rolling: Rolling, seen: Sequence[Evidence]) -> Figure | None:
    """Mean absolute error of both versions, running mean over the steps as their truth arrived. None: no truth has arrived."""
    pairs = sorted((p for e in seen for p in e.errors), key=lambda p: p.at_ms)
    if not pairs:
        return None
    weight = np.cumsum([p.weight for p in pairs])
    each = max(1, len(pairs) // _MOST_POINTS)
    times = [_time(p.at_ms / 1000) for p in pairs][::each]
    lines: list[dict[str, Any]] = []
    for name, values, colour in (
        (f"{rolling.state.champion} (champion)", [p.champion * p.weight for p in pairs], INK),
        (f"{rolling.state.challenger} (challenger)", [p.challenger * p.weight for p in pairs], RIDGE),
    ):
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(name),
                "line": {"color": colour, "width": 2},
                "x": times,
                "y": rounded((np.cumsum(values) / weight)[::each].tolist()),
                "hovertemplate": "%{fullData.name}: %{y:.4g}<extra></extra>",
            }
        )
    x = {"title": "Step that was forecast (UTC)"}
    note = {"text": "mean of all steps so far", "showarrow": False, "xref": "paper", "yref": "paper", "x": 1, "y": 1}
    annotation = {**note, "xanchor": "right", "yanchor": "bottom", "font": {"size": 12, "color": MUTED}}
    return figure(lines, x=x, y={"title": "MAE, unit of the target"}, height=320, hovermode="x unified", annotations=[annotation])


def _time(at_s: float, digits: str = "seconds") -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(sep=" ", timespec=digits).removesuffix("+00:00")
