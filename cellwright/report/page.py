"""The page: everything inlined, so that one file can be mailed and opened without a network."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from cellwright.params import Params
from cellwright.report import figures, tables
from cellwright.report.forecasts import Picture
from cellwright.report.palette import CHAMPION, INK, MUTED, RIDGE, looks
from cellwright.report.record import Record
from cellwright.report.words import number, quantity
from cellwright.runs import code_digest

_HERE = Path(__file__).parent
_STATED = ("cellwright", "torch", "lightning", "onnxruntime", "numpy", "codecarbon")
_HEADLINE = ("mae", "rmse", "r2", figures.ENERGY, "latency_p99_ms", "bundle_bytes")


def page(params: Params, record: Record, picture: Picture, commit: str | None) -> str:
    """The report as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"quantity": quantity, "number": number}
    columns, lines = tables.leaderboard(record)
    return environment.get_template("template.html").render(
        board=record.board,
        schema=record.schema,
        champion=record.champion,
        headline=_headline(record),
        facts=_facts(record),
        columns=columns,
        lines=lines,
        tried=tables.tried(record),
        energy=tables.energy(record),
        charts=_charts(record, picture),
        picture=picture,
        params=json.dumps(params.model_dump(mode="json", by_alias=True), indent=2),
        versions=_versions(),
        code=code_digest()[:12],
        commit=commit,
        style=(_HERE / "style.css").read_text(),
        script=(_HERE / "script.js").read_text(),
        plotly=get_plotlyjs(),
    )


def _charts(record: Record, picture: Picture) -> dict[str, Any]:
    """All that the page's script draws, by the id of the element it is drawn in; None where there is nothing to draw."""
    colours = looks(record)
    sites = figures.error_by_site(record)
    return {
        "energy": figures.accuracy_against_energy(record, colours),
        "steps": figures.error_by_step(record, colours),
        "curves": figures.training_curves(record, colours),
        "differences": figures.differences(record),
        "sites": [{"label": label, "figure": figure} for label, figure in sites],
        "forecasts": {
            **asdict(picture),
            "titles": {key: record.candidate(key).title for key in picture.lines},
            "colours": {"truth": INK, **{key: RIDGE if key == "ridge" else CHAMPION for key in picture.lines}},
            "figure": figures.figure([], x={"title": picture.times_title}, y={"title": ""}, height=400, hovermode="x unified"),
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
        ("cadence", quantity(schema.cadence_s, "s")),
        ("history → horizon", f"{board.history} → {board.horizon} steps"),
        ("data", f"{board.data.first} to {board.data.last}"),
        ("test windows", f"{board.test_windows:,}"),
    ]


def _versions() -> list[str]:
    found = [f"Python {platform.python_version()}"]
    for name in _STATED:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
