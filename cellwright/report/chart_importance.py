"""What the finalists lean on: bars of permutation importance and of integrated gradients."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from cellwright.report.palette import Look
from cellwright.report.style import Figure, figure, rounded
from cellwright.results import Importance, Scorecard

_MOST_BARS = 12
_CHARTS = {  # element -> how, of, caption, axis
    "importance-feature": ("permutation", "feature", "By feature", "growth of MAE without it (%)"),
    "importance-step": ("permutation", "step", "By step of the history", "growth of MAE without it (%)"),
    "importance-site": (
        "permutation",
        "site",
        "By site of the neighbourhood (row, column from the forecast site)",
        "growth of MAE without it (%)",
    ),
    "gradients-step": ("gradients", "step", "By step, integrated gradients", "share of the attribution (%)"),
}


def importance(card: Scorecard, colours: Mapping[str, Look]) -> dict[str, tuple[str, Figure]]:
    """(caption, chart) by the element it is drawn in; those that no finalist has are left out."""
    found = {}
    for element, (how, of, caption, axis) in _CHARTS.items():
        tables = {f.key: t for f in card.finalists for t in f.importance if (t.how, t.of) == (how, of) and t.names}
        if of == "site" and tables:  # finalists that see other neighbourhoods have other names for them
            names = next(iter(tables.values())).names
            tables = {key: t for key, t in tables.items() if t.names == names}
        if tables:
            found[element] = (caption, _bars(card, tables, colours, axis, ordered=of == "step"))
    return found


def _bars(card: Scorecard, tables: Mapping[str, Importance], colours: Mapping[str, Look], axis: str, *, ordered: bool) -> Figure:
    """Grouped bars, a finalist a colour; the greatest of them, or, of an order in time, all."""
    greatest: dict[str, float] = {}
    for t in tables.values():
        for name, value in zip(t.names, t.values, strict=True):
            greatest[name] = max(value, greatest.get(name, value))
    names = list(greatest) if ordered else sorted(greatest, key=lambda name: -greatest[name])[:_MOST_BARS]
    data = []
    for finalist in card.finalists:
        if (table := tables.get(finalist.key)) is None:
            continue
        values = dict(zip(table.names, table.values, strict=True))
        data.append(
            {
                "type": "bar",
                "name": escape(finalist.title),
                "x": [escape(name) for name in names],
                "y": rounded([None if (v := values.get(name)) is None else 100 * v for name in names], 4),
                "marker": {"color": colours[finalist.key].colour},
                "hovertemplate": "%{fullData.name}, %{x}: %{y:.3g} %<extra></extra>",
            }
        )
    x = {"type": "category", "showgrid": False, "categoryorder": "array", "categoryarray": [escape(n) for n in names]}
    return figure(data, x=x, y={"title": axis}, height=320, barmode="group", bargap=0.25)
