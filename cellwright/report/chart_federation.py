"""The rounds of a federation drawn: error, privacy budget, and whose updates came."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from cellwright.federation.results import Round
from cellwright.report.palette import CHAMPION, RIDGE
from cellwright.report.record import Federation
from cellwright.report.style import LEGEND, Figure, axis, figure, rounded
from cellwright.report.words import quantity

_REBUILT = re.compile(r"\btopology \d+ after \d+")
_ODD = "#aa4499"
_WIDE, _LOG_FROM = 200, 4.0  # characters of a hover text; ratio of errors from which their axis is logarithmic
_OUTCOMES = (  # outcome -> name and colour, in the order they are stacked
    ("counted", "counted", CHAMPION),
    ("late", "late", "#ddcc77"),
    ("empty", "without data", "#bbbbbb"),
    ("refused", "refused", _ODD),
    ("lost", "lost", RIDGE),
)
_TOLD = (("precision", "precision", "#44aa99"), ("recall", "recall", "#aa4499"), ("auc", "AUC", CHAMPION))


@dataclass(frozen=True)
class Panel:
    """One of the charts that stand above each other over the rounds."""

    title: str
    traces: list[dict[str, Any]]
    share: float  # of the height, relative to the others
    settings: dict[str, Any]


def by_round(found: Federation, unit: str) -> Figure | None:
    """Validation MAE of each round, with events; below it the privacy budget, and whose updates came. None: there was no round."""
    if not found.rounds:
        return None
    panels = [p for p in (_errors(found.rounds, unit), _told(found.rounds), _budget(found), _came(found.rounds)) if p]
    data = [{**trace, "xaxis": "x", "yaxis": _name("y", i)} for i, panel in enumerate(panels) for trace in panel.traces]
    rounds = [r.round for r in found.rounds]
    x = {"title": "Round", "anchor": _name("y", len(panels) - 1), "range": [min(rounds) - 0.6, max(rounds) + 0.6]}
    axes = {_name("yaxis", i): axis(settings) for i, settings in enumerate(_stacked(panels)) if i}
    height = 130 + round(220 * sum(p.share for p in panels))
    return figure(
        data, x={**x, **_whole(rounds)}, y=_stacked(panels)[0], height=height, hovermode="closest", barmode="stack",
        bargap=0.25, legend=LEGEND | {"traceorder": "normal"}, shapes=_rules(found.rounds), **axes,
    )  # fmt: skip


def happened(record: Round, before: Round | None) -> tuple[str, ...]:
    """What a round's record tells beyond its error: a topology that was rebuilt, nodes that left, what was decided."""
    told = [*record.events, *([record.decision] if record.decision else [])]
    if before is not None and before.topology != record.topology and not rebuilt(told):
        told.append(f"topology {record.topology} after {before.topology}")
    return tuple(told)


def rebuilt(told: Iterable[str]) -> bool:
    """Whether the topology was rebuilt, by what is told of a round."""
    return any(_REBUILT.search(words) for words in told)


def histories(rounds: Sequence[Round]) -> list[tuple[Round, tuple[str, ...]]]:
    """Every round with what happened in it."""
    return [(r, happened(r, before)) for before, r in zip([None, *rounds], rounds, strict=False)]


def _errors(rounds: Sequence[Round], unit: str) -> Panel:
    values = rounded([r.mae for r in rounds])
    trace = {
        "type": "scatter", "mode": "lines+markers", "name": "validation MAE over all owners", "x": [r.round for r in rounds],
        "y": values, "connectgaps": True, "line": {"color": CHAMPION, "width": 2.4}, "marker": {"color": CHAMPION, "size": 6},
        "text": [_hover(r) for r in rounds], "hovertemplate": f"round %{{x}}: MAE %{{y:.4g}} {escape(unit)}<br>%{{text}}<extra></extra>",
    }  # fmt: skip
    known = [v for v in values if v]
    wide = bool(known) and max(known) > _LOG_FROM * min(known)
    settings = {
        "title": f"Validation MAE ({escape(unit)})" if unit else "Validation MAE",
        **({"type": "log", "nticks": 6} if wide else {}),
    }
    return Panel("errors", [trace, *_events(rounds, values)], 1.0, settings)


def _events(rounds: Sequence[Round], values: Sequence[float | None]) -> list[dict[str, Any]]:
    """Marks on the error of the rounds in which something happened; where the error is not known, on the one before or after it."""
    known = [v for v in values if v is not None]
    if not known:
        return []
    kinds: dict[str, list[tuple[int, float, str]]] = {"topology rebuilt": [], "other events": []}
    at = known[0]
    for (record, told), value in zip(histories(rounds), values, strict=True):
        at = at if value is None else value
        if told:
            kind = "topology rebuilt" if rebuilt(told) else "other events"
            kinds[kind].append((record.round, at, "<br>".join(_short(words) for words in told)))
    looks = {"topology rebuilt": ("diamond", RIDGE), "other events": ("circle-open", _ODD)}
    return [_mark(name, points, *looks[name]) for name, points in kinds.items() if points]


def _mark(name: str, points: Sequence[tuple[int, float, str]], symbol: str, colour: str) -> dict[str, Any]:
    x, y, text = zip(*points, strict=True)
    marker = {"symbol": symbol, "size": 12, "color": colour, "line": {"color": colour, "width": 2}}
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": list(x), "y": list(y), "text": list(text), "marker": marker,
        "hovertemplate": "round %{x}: %{text}<extra></extra>",
    }  # fmt: skip


def _told(rounds: Sequence[Round]) -> Panel | None:
    """How well events are told, of a classification."""
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "name": name, "x": [r.round for r in rounds],
            "y": rounded([getattr(r, field) for r in rounds], 4), "line": {"color": colour, "width": 1.8}, "marker": {"size": 5},
            "hovertemplate": f"round %{{x}}: {name} %{{y:.3f}}<extra></extra>",
        }
        for field, name, colour in _TOLD
        if any(getattr(r, field) is not None for r in rounds)
    ]  # fmt: skip
    return Panel("told", traces, 0.6, {"title": "share", "range": [0, 1.02]}) if traces else None


def _budget(found: Federation) -> Panel | None:
    """The privacy budget that is spent so far."""
    rounds = [r for r in found.rounds if r.epsilon is not None]
    if not rounds:
        return None
    last = rounds[-1]
    delta = f" at δ = {last.delta:g}" if last.delta is not None else ""
    trace = {
        "type": "scatter", "mode": "lines", "name": f"privacy budget ε spent{delta}", "x": [r.round for r in rounds],
        "y": rounded([r.epsilon for r in rounds]), "line": {"color": "#117733", "width": 2, "shape": "hv"},
        "hovertemplate": "round %{x}: ε %{y:.4g}<extra></extra>",
    }  # fmt: skip
    return Panel("budget", [trace], 0.5, {"title": "ε", "rangemode": "tozero"})


def _came(rounds: Sequence[Round]) -> Panel | None:
    """What became of the updates; only where not all were counted."""
    counts = {name: [sum(o.outcome == name for o in r.owners) for r in rounds] for name, _, _ in _OUTCOMES}
    if not any(any(counts[name]) for name in counts if name != "counted"):
        return None
    traces = [
        {
            "type": "bar", "name": f"updates {title}", "x": [r.round for r in rounds], "y": counts[name],
            "marker": {"color": colour}, "hovertemplate": f"round %{{x}}: %{{y}} {title}<extra></extra>",
        }
        for name, title, colour in _OUTCOMES
        if any(counts[name])
    ]  # fmt: skip
    return Panel("came", traces, 0.5, {"title": "owners", "rangemode": "tozero"})


def _hover(record: Round) -> str:
    counted = sum(o.outcome == "counted" for o in record.owners)
    parts = [
        f"{counted} of {sum(o.outcome != 'evaluated' for o in record.owners)} updates counted",
        f"{quantity(record.up_bytes, 'B')} up, {quantity(record.down_bytes, 'B')} down, {quantity(record.seconds, 's')}",
        f"learning rate {record.learning_rate:.3g}, topology {record.topology}",
    ]
    return "<br>".join(parts)


def _stacked(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Settings of the y axes, the first panel on top."""
    gap, whole, top, found = 0.06, sum(p.share for p in panels), 1.0, list[dict[str, Any]]()
    for panel in panels:
        height = (1 - gap * (len(panels) - 1)) * panel.share / whole
        found.append({**panel.settings, "domain": [max(0.0, round(top - height, 4)), round(top, 4)]})
        top -= height + gap
    return found


def _rules(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """A thin line through all panels where the topology was rebuilt."""
    line = {"color": RIDGE, "width": 1, "dash": "dot"}
    changed = [record.round for record, told in histories(rounds) if rebuilt(told)]
    return [
        {"type": "line", "xref": "x", "yref": "paper", "x0": r, "x1": r, "y0": 0, "y1": 1, "layer": "below", "line": line}
        for r in changed
    ]


def _whole(rounds: Sequence[int]) -> dict[str, Any]:
    """Ticks at whole rounds."""
    return {"dtick": 1} if len(rounds) <= 20 else {"tickformat": "d"}


def _name(letter: str, index: int) -> str:
    """Plotly's name of an axis: y, y2, y3."""
    return letter if index == 0 else f"{letter}{index + 1}"


def _short(words: str) -> str:
    return escape(words if len(words) <= _WIDE else words[: _WIDE - 1] + "…")
