"""The charts of a report as Plotly's JSON: pure functions from a run's record. Every name in them is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cellwright.panel import PanelSchema
from cellwright.report.palette import CHAMPION, FONT, GRID, INK, MUTED, Look
from cellwright.report.record import Candidate, Record
from cellwright.report.words import number, quantity
from cellwright.results import Interval

Figure = dict[str, Any]  # {"data": traces, "layout": layout}
ENERGY, CPU = "train_energy_j", "cpu_s"


def figure(data: list[dict[str, Any]], *, x: Mapping[str, Any], y: Mapping[str, Any], height: int = 380, **layout: Any) -> Figure:
    """A chart in the house's style; `x` and `y` are settings of the axes."""
    axis = {
        "gridcolor": GRID,
        "linecolor": "#c5ccd3",
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": "#c5ccd3",
        "automargin": True,
        "title": {"font": {"color": MUTED}},
    }
    base = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "height": height,
        "margin": {"l": 8, "r": 16, "t": 16, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#c5ccd3", "font": {"family": FONT, "color": INK}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "xaxis": {**axis, **_titled(x)},
        "yaxis": {**axis, **_titled(y)},
    }
    return {"data": data, "layout": {**base, **layout}}


def accuracy_against_energy(record: Record, looks: Mapping[str, Look]) -> Figure | None:
    """Test MAE against training energy (log), with the Pareto front; None where neither energy nor CPU time is known."""
    metered = all(_energy(c) is not None for c in record.candidates if c.row)
    spent = {c.key: _energy(c) if metered else _cpu_s(c) for c in record.candidates if c.row}
    shown = [c for c in record.candidates if c.row and c.row.kpis.get("mae") is not None and (spent[c.key] or 0) > 0]
    if not shown:
        return None
    unit, name = ("J", "Energy of training") if metered else ("s", "CPU time of training")
    points = [_point(record, c, spent[c.key] or 0.0, looks[c.key], unit) for c in shown]
    x = {"title": f"{name} ({unit}, log scale)", "type": "log", "exponentformat": "power", "dtick": 1}
    front = _front([(spent[c.key] or 0.0, c.row.kpis["mae"] or 0.0) for c in shown if c.row])
    return figure(
        [front, *points], x=x, y={"title": f"MAE ({escape(record.board.unit)}), test span"}, height=440, showlegend=False
    )


def error_by_step(record: Record, looks: Mapping[str, Look]) -> Figure:
    """Test MAE of each forecast step."""
    steps = list(range(1, record.board.horizon + 1))
    data = [
        {**_line(c, looks[c.key]), "x": steps, "y": rounded(c.scored.mae_by_step), "mode": "lines+markers"}
        for c in record.candidates
        if c.scored is not None
    ]
    layout: dict[str, Any] = {}
    if record.board.noise_floor:
        level = sum(record.board.noise_floor.values()) / len(record.board.noise_floor)
        layout = _level(level, "noise floor of the data")
    cadence = quantity(record.schema.cadence_s, "s")
    ticks = {"dtick": 1} if record.board.horizon <= 24 else {}
    return figure(
        data, x={"title": f"Step ahead ({cadence} each)", **ticks}, y={"title": _mae(record), "rangemode": "tozero"}, **layout
    )


def training_curves(record: Record, looks: Mapping[str, Look]) -> Figure | None:
    """Validation loss by epoch; None where every candidate has a closed form."""
    data = []
    for c in record.candidates:
        points = [(e["epoch"], e["validation_loss"]) for e in c.history if e.get("validation_loss") is not None]
        if points:
            x, y = zip(*points, strict=True)
            data.append({**_line(c, looks[c.key]), "x": list(x), "y": rounded(y)})
    if not data:
        return None
    return figure(data, x={"title": "Epoch"}, y={"title": "Validation loss (scaled units, log)", "type": "log"})


def differences(record: Record) -> Figure | None:
    """Forest plot: MAE of the choice minus each other's, with the paired interval, on both spans."""
    scored = record.champion.scored
    if scored is None or not scored.test_pairs:
        return None
    order = [c.key for c in reversed(record.candidates) if c.row and c.key != record.champion.key]
    data = [
        _forest(record, scored.validation_pairs, order, "validation span (decides)", CHAMPION, 0.16),
        _forest(record, scored.test_pairs, order, "test span (read once)", "#8a97a3", -0.16),
    ]
    title = f"MAE of {escape(record.champion.title)} minus the other's ({escape(record.board.unit)}); left of 0: it is better"
    ticks = {"tickvals": list(range(len(order))), "ticktext": [escape(record.candidate(k).title) for k in order]}
    y = {**ticks, "range": [-0.6, len(order) - 0.4], "showgrid": False}
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": INK, "width": 1}}
    return figure(data, x={"title": title}, y=y, height=120 + 46 * len(order), shapes=[zero])


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
    top = max(shared, default=1.0)
    return [(label, _sites(record, values, signed, top)) for label, values, signed in layers]


def rounded(values: Sequence[float | None], digits: int = 5) -> list[float | None]:
    """Fewer digits than a float has: a page is to be small."""
    return [None if v is None or v != v else float(f"{v:.{digits}g}") for v in values]


def _titled(axis: Mapping[str, Any]) -> dict[str, Any]:
    title = axis.get("title")
    return {**axis, **({"title": {"text": title, "font": {"color": MUTED, "size": 13}}} if isinstance(title, str) else {})}


def _mae(record: Record) -> str:
    return f"MAE ({escape(record.board.unit)})"


def _line(candidate: Candidate, look: Look) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(candidate.title),
        "line": {"color": look.colour, "dash": look.dash, "width": look.width},
        "marker": {"color": look.colour, "size": 6},
        "hovertemplate": "%{fullData.name}: %{y:.4g}<extra></extra>",
    }


def _level(value: float, text: str) -> dict[str, Any]:
    line = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": MUTED, "dash": "dot", "width": 1},
    }
    label = {"xref": "paper", "x": 1, "y": value, "text": text, "showarrow": False, "yshift": 10, "xanchor": "right"}
    return {"shapes": [line], "annotations": [{**label, "font": {"size": 12, "color": MUTED}}]}


def _energy(candidate: Candidate) -> float | None:
    if candidate.row is not None and candidate.row.kpis.get(ENERGY) is not None:
        return candidate.row.kpis[ENERGY]
    return candidate.trained.energy.energy_j if candidate.trained and candidate.trained.energy else None


def _cpu_s(candidate: Candidate) -> float | None:
    return candidate.trained.cpu_s if candidate.trained else None


def _point(record: Record, candidate: Candidate, spent: float, look: Look, unit: str) -> dict[str, Any]:
    row = candidate.row
    assert row is not None
    chosen = candidate.key == record.board.choice.key
    mae = row.kpis["mae"] or 0.0
    told = f"{escape(candidate.title)}<br>MAE {number(mae)} {escape(record.board.unit)}<br>{quantity(spent, unit)}"
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [spent],
        "y": [mae],
        "text": [f"<b>{escape(candidate.title)}</b>" if chosen else escape(candidate.title)],
        "textposition": "top center",
        "textfont": {"size": 13 if chosen else 12},
        "cliponaxis": False,
        "marker": {
            "color": look.colour,
            "size": 17 if chosen else 11,
            "symbol": "star" if chosen else "circle" if row.on_front else "circle-open",
            "line": {"width": 1.5, "color": look.colour},
        },
        "hovertemplate": told + "<extra></extra>",
    }


def _front(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The lower left edge of (energy, MAE), as steps."""
    best, edge = float("inf"), []
    for energy, mae in sorted(points):
        if mae < best:
            best = mae
            edge.append((energy, mae))
    x, y = zip(*edge, strict=True) if edge else ((), ())
    line = {"color": "#9aa6b2", "dash": "dash", "width": 1.5, "shape": "hv"}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "line": line, "hoverinfo": "skip"}


def _forest(
    record: Record, pairs: Sequence[Interval], order: Sequence[str], name: str, colour: str, shift: float
) -> dict[str, Any]:
    found = {p.other: p for p in pairs}
    shown = [(i, found[key]) for i, key in enumerate(order) if key in found]
    told = [
        f"{escape(record.candidate(p.other).title)}, {name}<br>{number(p.difference)} [{number(p.low)}, {number(p.high)}]"
        f"{'<br>a tie' if p.tie else ''}<extra></extra>"
        for _, p in shown
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rounded([p.difference for _, p in shown]),
        "y": [i + shift for i, _ in shown],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": rounded([p.high - p.difference for _, p in shown]),
            "arrayminus": rounded([p.difference - p.low for _, p in shown]),
            "color": colour,
            "thickness": 2,
            "width": 5,
        },
        "marker": {"color": colour, "size": 9, "symbol": ["circle-open" if p.tie else "circle" for _, p in shown]},
        "hovertemplate": told,
    }


def _by_site(candidate: Candidate) -> list[float | None] | None:
    return candidate.scored.mae_by_site if candidate.scored is not None else None


def _sites(record: Record, values: Sequence[float | None], signed: bool, top: float) -> Figure:
    schema = record.schema
    scale = _scale(values, signed, top, f"MAE<br>({escape(record.board.unit)})")
    if schema.grid is not None:
        return _heat(schema, values, scale)
    if schema.coordinates is not None:
        return _dots(schema, values, scale)
    return _bars(schema, values, _mae(record))


def _scale(values: Sequence[float | None], signed: bool, top: float, title: str) -> dict[str, Any]:
    """Light is good; signed: blue is better than ridge, orange worse, white the same."""
    bar = {"title": {"text": title, "font": {"size": 12}}, "thickness": 12, "outlinewidth": 0}
    if not signed:
        return {"colorscale": "Viridis", "reversescale": True, "cmin": 0, "cmax": top, "colorbar": bar}
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
