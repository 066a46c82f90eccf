"""What the pages of vertical and of transfer federations have in common: figures, cells, and the chart of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from cellwright.report.federated import Fact, Figures
from cellwright.report.palette import CHAMPION, INK, RIDGE
from cellwright.report.style import Figure, figure, rounded
from cellwright.report.tables import Cell
from cellwright.report.words import ABSENT, quantity

_ENDED = {"converged": "converged", "epochs": "all epochs done", "rounds": "all rounds done", "budget": "ended by its budget"}
_LOOKS = ((CHAMPION, 2.4), (RIDGE, 1.8), (INK, 1.8))  # of the lines, in their order


@dataclass(frozen=True)
class Table:
    """A row a party, an owner or a training. `columns`: title, unit."""

    first: str  # title of the first column
    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class KindView:
    """What the template shows."""

    kind: str
    title: str
    lead: str
    sentence: str
    figures: tuple[Figures, ...]
    step: str  # "epoch" or "round"
    charts: dict[str, Figure | None]
    tables: tuple[tuple[str, Table], ...]  # each with its heading
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Made:
    """What one kind of federation has to show."""

    title: str
    figures: list[Figures]
    step: str  # "epoch" or "round"
    chart: Figure | None
    tables: list[tuple[str, Table]]  # each with its heading
    facts: list[Fact]


def lines(values: Mapping[str, Sequence[float | None]], step: str, unit: str) -> Figure | None:
    """Validation MAE step by step, a line a training."""
    data = [
        {
            "type": "scatter", "mode": "lines+markers", "name": escape(name), "x": list(range(1, len(maes) + 1)), "y": rounded(maes),
            "connectgaps": True, "line": {"color": colour, "width": width}, "marker": {"color": colour, "size": 6},
            "hovertemplate": f"{escape(name)}, {step.lower()} %{{x}}: MAE %{{y:.4g}} {escape(unit)}<extra></extra>",
        }
        for (name, maes), (colour, width) in zip(values.items(), _LOOKS, strict=False)
        if any(v is not None for v in maes)
    ]  # fmt: skip
    if not data:
        return None
    longest = max(len(maes) for maes in values.values())
    ticks = {"dtick": 1} if longest <= 20 else {"tickformat": "d"}
    return figure(data, x={"title": step, **ticks}, y={"title": f"Validation MAE ({escape(unit)})" if unit else "Validation MAE"})


def other(name: str, value: float, mine: float | None, unit: str, what: str) -> Figures:
    beside = "" if mine is None or not value else f"{what} is {mine / value - 1:+.1%}".replace("-", "−").replace("%", " %")
    return Figures(f"Test MAE, {name}", quantity(value, unit), beside)


def both_ways(up: int, down: int) -> Figures:
    return Figures("Bytes", quantity(up + down, "B"), f"{quantity(up, 'B')} up, {quantity(down, 'B')} down")


def energy(joules: float | None, source: str | None) -> list[Figures]:
    return [] if joules is None else [Figures("Energy", quantity(joules, "J"), source or "")]


def ended(status: str) -> str:
    return _ENDED.get(status, status)


def count(value: int | None) -> Cell:
    return Cell(ABSENT, "") if value is None else Cell(f"{value:,}", str(value))


def cell(value: float | None, unit: str) -> Cell:
    return Cell(ABSENT, "") if value is None else Cell(quantity(value, unit), repr(float(value)))


def share(value: float | None, other: float | None) -> Cell:
    if value is None or not other:
        return Cell(ABSENT, "")
    return Cell(f"{value / other - 1:+.1%}".replace("-", "−").replace("%", " %"), repr(value / other))
