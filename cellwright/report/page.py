"""The page: everything inlined, so that one file can be mailed and opened without a network."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from cellwright.federation.results import Federated
from cellwright.params import Params
from cellwright.report import federated, rollout, scorecard, tables
from cellwright.report.chart_calibration import coverage_table, pit_histogram, reliability
from cellwright.report.chart_differences import differences
from cellwright.report.chart_energy import ENERGY, accuracy_against_energy
from cellwright.report.chart_importance import importance
from cellwright.report.chart_lines import error_by_step, is_far, training_curves
from cellwright.report.chart_sites import error_by_site
from cellwright.report.forecasts import Picture
from cellwright.report.kinds_parts import KindView
from cellwright.report.palette import CHAMPION, INK, RIDGE, looks
from cellwright.report.record import Record
from cellwright.report.style import figure
from cellwright.report.words import every_nth, exact, number, quantity
from cellwright.results import DataVersion
from cellwright.runs import code_digest
from cellwright.workspace import Workspace

_HERE = Path(__file__).parent
_STATED = ("cellwright", "torch", "lightning", "onnxruntime", "numpy", "codecarbon")
_HEADLINE = ("mae", "rmse", "r2", ENERGY, "latency_p99_ms", "bundle_bytes")


def page(params: Params, ws: Workspace, record: Record, picture: Picture, commit: str | None) -> str:
    """The report as HTML."""
    columns, lines = tables.leaderboard(record, params.rank.weights)
    federations = federated.views(record.candidates, record.board.unit)
    replaced = rollout.view(ws)
    return _rendered(
        "template.html",
        board=record.board,
        schema=record.schema,
        champion=record.champion,
        headline=_headline(record),
        facts=_facts(record),
        columns=columns,
        lines=lines,
        groups=tables.hidden_groups(columns),
        coverage=coverage_table(record),
        far=[c.title for c in record.candidates if is_far(record, c)],
        tried=tables.tried(record),
        energy=tables.energy(record),
        scorecard=scorecard.table(record.card, record) if record.card is not None and record.card.finalists else None,
        federations=federations,
        rollout=replaced,
        charts=_charts(params, ws, record, picture)
        | {"federations": federated.charts(federations)}
        | (replaced.charts if replaced is not None else {}),
        picture=picture,
        params=json.dumps(params.model_dump(mode="json", by_alias=True), indent=2),
        versions=_versions(),
        code=code_digest()[:12],
        commit=commit,
    )


def federation_page(shown: federated.View, result: Federated) -> str:
    """The federated section alone, as HTML."""
    charts = federated.charts([shown])
    return _alone("federated.html", shown.title, result.key, result.data, charts, federations=[shown])


def kind_page(shown: KindView, data: DataVersion, run: str) -> str:
    """A vertical or a transfer federation, as HTML."""
    return _alone("kinds.html", shown.title, run, data, [shown.charts], shown=shown)


def _alone(body: str, title: str, key: str, data: DataVersion, charts: list[dict[str, Any]], **shown: Any) -> str:
    """A page that holds one section and no leaderboard; `body`: its template."""
    return _rendered(
        "federation_page.html",
        body=body,
        title=title,
        key=key,
        data=data,
        charts={"federations": charts},
        versions=_versions(),
        code=code_digest()[:12],
        **shown,
    )


def _rendered(template: str, **values: Any) -> str:
    """A template with its style, its script and Plotly inlined; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"quantity": quantity, "number": number, "exact": exact}
    return environment.get_template(template).render(
        **values,
        style=(_HERE / "style.css").read_text(),
        script=(_HERE / "script.js").read_text(),
        plotly=get_plotlyjs(),
    )


def _charts(params: Params, ws: Workspace, record: Record, picture: Picture) -> dict[str, Any]:
    """All that the page's script draws, by the id of the element it is drawn in; None where there is nothing to draw."""
    colours = looks(record)
    return {
        "energy": accuracy_against_energy(record, colours),
        "steps": error_by_step(record, colours),
        "curves": training_curves(record, colours),
        "reliability": reliability(record, colours),
        "pit": pit_histogram(record),
        "differences": differences(params, ws, record),
        "importance": importance(record.card, colours) if record.card is not None else {},
        "sites": [{"label": label, "figure": chart} for label, chart in error_by_site(record)],
        "forecasts": {
            **asdict(picture),
            "titles": {key: record.candidate(key).title for key in picture.lines},
            "colours": {"truth": INK, **{key: RIDGE if key == "ridge" else CHAMPION for key in picture.lines}},
            "figure": figure([], x={"title": picture.times_title}, y={"title": ""}, height=400, hovermode="x unified"),
            "units": {f.name: f.unit for f in record.schema.features},
        },
    }


def _headline(record: Record) -> list[dict[str, str]]:
    """The champion's main figures: title, value with unit, and ridge's for comparison."""
    board = record.board
    mine = record.champion.row
    ridge = next((r for r in board.rows if r.key == "ridge" and r.key != board.choice.key), None)
    found = []
    for kpi in _HEADLINE:
        value = mine.kpis.get(kpi) if mine else None
        if value is not None:
            unit = board.kpi_units.get(kpi, "")
            beside = f"ridge {quantity(ridge.kpis.get(kpi), unit)}" if ridge and ridge.kpis.get(kpi) is not None else ""
            found.append({"title": board.kpi_titles.get(kpi, kpi), "value": quantity(value, unit), "beside": beside})
    return found


def _facts(record: Record) -> list[tuple[str, str]]:
    """What the header says of the data and the task."""
    board, schema = record.board, record.schema
    layout = f"{schema.grid[0]} × {schema.grid[1]} grid, " if schema.grid else ""
    return [
        ("sites", f"{layout}{board.data.sites}"),
        ("cadence", exact(schema.cadence_s, "s")),
        ("history → horizon", f"{board.history} → {board.horizon} steps"),
        ("data", f"{_day(board.data.first)} to {_day(board.data.last)}"),
        ("test windows", f"{board.test_windows:,}{every_nth(board.stride)}"),
    ]


def _day(time: str) -> str:
    """The date of an ISO 8601 time; `row 0` of a relative clock stays."""
    return time.partition("T")[0]


def _versions() -> list[str]:
    found = [f"Python {platform.python_version()}"]
    for name in _STATED:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
