"""The owners of a federation drawn: the error of each with three models, and what it contributed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from cellwright.federation.results import OwnerResult
from cellwright.report.palette import CHAMPION, INK, RIDGE
from cellwright.report.record import Federation
from cellwright.report.style import Figure, axis, figure, rounded

MOST_NAMED = 40  # owners that get a line of their own; more are drawn by rank
_LOG_FROM = 20.0  # ratio of errors from which their axis is logarithmic
_FIELDS = {  # field -> name, colour, symbol
    "mae": ("federated", CHAMPION, "circle"),
    "mae_alone": ("alone, on its own data", RIDGE, "diamond-open"),
    "mae_central": ("centralised, on everyone's data", INK, "line"),
}


def by_owner(found: Federation, unit: str) -> Figure | None:
    """Test MAE of each owner with the federated model, with its own alone, and with that of everyone's data; its contribution beside.

    Owners lie in the order of their federated error. None: no owner's error is known.
    """
    owners = ordered(found.result.owners)
    if all(o.mae is None and o.mae_alone is None and o.mae_central is None for o in owners):
        return None
    return _named(owners, unit) if len(owners) <= MOST_NAMED else _ranked(owners, unit)


def ordered(owners: Sequence[OwnerResult]) -> list[OwnerResult]:
    """By test MAE, the least first; those without one last."""
    return sorted(owners, key=lambda o: (o.mae is None, o.mae or 0.0, o.owner))


def _named(owners: Sequence[OwnerResult], unit: str) -> Figure:
    """A line an owner, from its least error to its greatest."""
    places = list(range(len(owners)))
    spans = [(i, min(k), max(k)) for i, o in enumerate(owners) if (k := _known(o))]
    reach = {
        "type": "scatter", "mode": "lines", "x": [v for _, low, high in spans for v in (*rounded([low, high]), None)],
        "y": [v for i, _, _ in spans for v in (i, i, None)], "line": {"color": "#c5ccd3", "width": 2}, "hoverinfo": "skip",
        "showlegend": False,
    }  # fmt: skip
    dots = [_dots(owners, field, horizontal=True, size=size) for field, size in _present(owners, 10)]
    given = _given(owners, places, horizontal=True)
    y = {
        "tickmode": "array", "tickvals": places, "ticktext": [escape(_cut(o.owner)) for o in owners],
        "range": [len(owners) - 0.5, -0.5], "showgrid": False,
    }  # fmt: skip
    x = {"title": _title(unit), **_scale(owners), "domain": [0, 0.62 if given else 1]}
    beside = {"xaxis2": axis({"title": _gain(unit), "domain": [0.68, 1], "zeroline": True, "zerolinecolor": "#c5ccd3"})}
    height = 120 + 21 * len(owners)
    return figure([reach, *dots, *given], x=x, y=y, height=height, hovermode="closest", **(beside if given else {}))


def _ranked(owners: Sequence[OwnerResult], unit: str) -> Figure:
    """A column of dots an owner, by rank: names are told where one points."""
    dots = [_dots(owners, field, horizontal=False, size=size) for field, size in reversed(_present(owners, 5))]
    given = _given(owners, list(range(1, len(owners) + 1)), horizontal=False)
    x = {"title": "Rank of the owner by its federated MAE", "anchor": "y2" if given else "y"}
    y = {"title": _title(unit), **_scale(owners), "domain": [0.36 if given else 0, 1]}
    below = {"yaxis2": axis({"title": _gain(unit), "domain": [0, 0.28], "zeroline": True, "zerolinecolor": "#c5ccd3"})}
    return figure([*dots, *given], x=x, y=y, height=540, hovermode="closest", bargap=0.1, **(below if given else {}))


def _present(owners: Sequence[OwnerResult], size: int) -> list[tuple[str, int]]:
    return [(field, size) for field in _FIELDS if any(getattr(o, field) is not None for o in owners)]


def _dots(owners: Sequence[OwnerResult], field: str, *, horizontal: bool, size: int) -> dict[str, Any]:
    name, colour, symbol = _FIELDS[field]
    if symbol == "line":
        symbol, size = ("line-ns-open", size + 2) if horizontal else ("circle", size - 2)
    values, first = rounded([getattr(o, field) for o in owners]), 0 if horizontal else 1
    places = list(range(first, len(owners) + first))
    across, value = ("x", "%{x:.4g}") if horizontal else ("y", "%{y:.4g}")
    return {
        "type": "scatter", "mode": "markers", "name": name, across: values,
        ("y" if horizontal else "x"): places, "text": [escape(o.owner) for o in owners],
        "marker": {"symbol": symbol, "size": size, "color": colour, "line": {"width": 2 if horizontal else 1, "color": colour}},
        "hovertemplate": f"%{{text}}: MAE {value} {name}<extra></extra>",
    }  # fmt: skip


def _given(owners: Sequence[OwnerResult], places: Sequence[int], *, horizontal: bool) -> list[dict[str, Any]]:
    """Bars of the contributions; a tick for leaving the owner out, where there is room."""
    if all(o.contribution is None for o in owners):
        return []
    along, across = ("y", "x") if horizontal else ("x", "y")
    value = f"%{{{across}:.3g}}"
    shared = {along: list(places), f"{across}axis": f"{across}2", "text": [escape(o.owner) for o in owners]}
    colours = [CHAMPION if (o.contribution or 0) >= 0 else RIDGE for o in owners]
    bars = {
        **shared, "type": "bar", "name": "contribution (Shapley)", across: rounded([o.contribution for o in owners], 4),
        "marker": {"color": colours, "opacity": 0.65}, "textposition": "none", **({"orientation": "h"} if horizontal else {}),
        "showlegend": False, "hovertemplate": f"%{{text}}: contribution {value} (Shapley)<extra></extra>",
    }  # fmt: skip
    left_out = {
        **shared, "type": "scatter", "mode": "markers", "name": "by leaving it out", "showlegend": False,
        across: rounded([o.contribution_loo for o in owners], 4),
        "marker": {"symbol": "line-ns-open", "size": 10, "color": INK},
        "hovertemplate": f"%{{text}}: {value} by leaving it out<extra></extra>",
    }  # fmt: skip
    return [bars, left_out] if horizontal and any(o.contribution_loo is not None for o in owners) else [bars]


def _scale(owners: Sequence[OwnerResult]) -> dict[str, Any]:
    """Logarithmic where owners differ by far."""
    known = [v for o in owners for v in _known(o) if v > 0]
    return {"type": "log", "nticks": 8} if known and max(known) > _LOG_FROM * min(known) else {}


def _known(owner: OwnerResult) -> list[float]:
    return [v for v in (owner.mae, owner.mae_alone, owner.mae_central) if v is not None]


def _title(unit: str) -> str:
    return f"Test MAE ({escape(unit)})" if unit else "Test MAE"


def _gain(unit: str) -> str:
    return f"Contribution ({escape(unit)})" if unit else "Contribution"


def _cut(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
