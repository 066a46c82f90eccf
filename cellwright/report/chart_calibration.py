"""How far the predictive quantiles can be relied on: observed against nominal shares of the test span, and the PIT histogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from itertools import accumulate, pairwise
from typing import Any

from cellwright.report.palette import CHAMPION, MUTED, Look
from cellwright.report.record import Candidate, Record
from cellwright.report.style import Figure, figure, line, rounded
from cellwright.report.words import ABSENT, quantity
from cellwright.results import Calibration

_WIDTH = "interval_width_80"


@dataclass(frozen=True)
class Covered:
    """A candidate as a row: observed coverage of each nominal one, and the width of the 80 % interval."""

    title: str
    chosen: bool
    cells: list[str]
    width: str


def coverage_table(record: Record) -> tuple[list[str], list[Covered]]:
    """(nominal coverages as words, rows) in the order of rank; no rows where no candidate is calibrated."""
    found = [(c, c.scored.test_calibration) for c in record.candidates if c.scored is not None and c.scored.test_calibration]
    nominal = list(found[0][1].coverage) if found else []
    rows = [
        Covered(
            c.title,
            c.key == record.board.choice.key,
            [f"{100 * calibration.coverage[n]:.1f} %" if n in calibration.coverage else ABSENT for n in nominal],
            quantity(c.scored.test.get(_WIDTH) if c.scored else None, record.board.kpi_units.get(_WIDTH, record.board.unit)),
        )
        for c, calibration in found
    ]
    return [f"{100 * float(n):.0f} %" for n in nominal], rows


def reliability(record: Record, looks: Mapping[str, Look]) -> Figure | None:
    """Observed minus nominal share of the truth below each quantile, of the choice, its rivals and ridge; None without any."""
    data = []
    for candidate, calibration in _finalists(record):
        observed = list(accumulate(calibration.shares))[:-1]
        apart = [100 * (o - level) for o, level in zip(observed, calibration.levels, strict=True)]
        levels = [100 * level for level in calibration.levels]
        hover = "%{fullData.name}: %{y:+.2f} points<extra></extra>"
        data.append({**line(candidate, looks[candidate.key]), "x": levels, "y": rounded(apart), "mode": "lines+markers"})
        data[-1]["hovertemplate"] = hover
    if not data:
        return None
    rule = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 0,
        "y1": 0,
        "line": {"color": MUTED, "dash": "dot", "width": 1},
    }
    x = {"title": "Quantile (%)", "range": [0, 100], "tickvals": data[0]["x"], "tickangle": 0}
    reach = 1.15 * max(1.0, *(abs(v) for trace in data for v in trace["y"] if v is not None))
    y = {"title": "Truth below it: observed − nominal (points)", "range": [-reach, reach]}
    return figure(data, x=x, y=y, shapes=[rule])


def pit_histogram(record: Record) -> Figure | None:
    """The choice's PIT histogram: flat at 1 where the truth falls between the quantiles as often as they say."""
    calibration = record.champion.scored.test_calibration if record.champion.scored else None
    if calibration is None:
        return None
    bins = list(zip(calibration.shares, pairwise((0.0, *calibration.levels, 1.0)), strict=True))
    trace: dict[str, Any] = {
        "type": "bar",
        "name": escape(record.champion.title),
        "x": [(low + high) / 2 for _, (low, high) in bins],
        "width": [high - low for _, (low, high) in bins],
        "y": rounded([share / (high - low) for share, (low, high) in bins]),
        "customdata": [f"{share:.1%} of the truth, nominally {high - low:.1%}" for share, (low, high) in bins],
        "marker": {"color": CHAMPION, "line": {"color": "#ffffff", "width": 1}},
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    rule = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 1,
        "y1": 1,
        "line": {"color": MUTED, "dash": "dot", "width": 1},
    }
    x = {"title": "Between which quantiles the truth fell", "range": [0, 1], "showgrid": False}
    return figure([trace], x=x, y={"title": "Observed / nominal share", "rangemode": "tozero"}, shapes=[rule])


def _finalists(record: Record) -> list[tuple[Candidate, Calibration]]:
    """The choice, those as accurate, and ridge, as far as they are calibrated."""
    keys = {record.board.choice.key, *record.board.choice.similar, "ridge"}
    some = [(c, c.scored.test_calibration) for c in record.candidates if c.key in keys and c.scored is not None]
    return [(c, calibration) for c, calibration in some if calibration is not None]
