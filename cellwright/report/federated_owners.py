"""The table of a federation's owners: columns in the unit that reads best, cells as text with the number they sort by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cellwright.federation.results import Federated, OwnerResult
from cellwright.report.chart_owners import ordered
from cellwright.report.tables import Cell
from cellwright.report.words import ABSENT, number, scale

Value = Callable[[OwnerResult], float | None]


@dataclass(frozen=True)
class OwnerColumn:
    """A figure of every owner. `note`: what it means, told where one points."""

    title: str
    unit: str
    note: str
    factor: float  # values are divided by it
    value: Value


@dataclass(frozen=True)
class OwnerLine:
    """An owner as a row. `sites`: whose telemetry it holds, "" where it is the site."""

    owner: str
    sites: str
    cells: tuple[Cell, ...]
    source: str  # of its energy


@dataclass(frozen=True)
class OwnerTable:
    """Owners in the order of their federated error. `source`: of all their energy; None: it differs, each line has its own."""

    columns: tuple[OwnerColumn, ...]
    lines: tuple[OwnerLine, ...]
    source: str | None


def owner_table(found: Federated, unit: str) -> OwnerTable:
    """Every owner with its error three ways, what it gave and what it cost."""
    columns = tuple(_column(found.owners, *parts) for parts in _parts(unit, found.contribution_of))
    sources = {o.energy_source or "" for o in found.owners}
    lines = tuple(_line(o, columns) for o in ordered(found.owners))
    return OwnerTable(columns, lines, sources.pop() if len(sources) == 1 else None)


def _parts(unit: str, measure: str) -> list[tuple[str, str, str, Value]]:
    """(title, unit, note, value) of each column."""
    gain, of = f"validation {measure} that it saves all owners", unit if measure == "MAE" else ""
    return [
        ("Windows", "", "windows it could train on", lambda o: o.examples),
        ("Rounds", "", "rounds in which its update was counted", lambda o: o.rounds),
        ("MAE", unit, "test span, with the federated model", lambda o: o.mae),
        ("MAE alone", unit, "test span, the same network trained on its own data alone", lambda o: o.mae_alone),
        ("MAE central", unit, "test span, the same network trained on everyone's data", lambda o: o.mae_central),
        ("Shapley", of, f"contribution: {gain}, over the orders in which owners may join", lambda o: o.contribution),
        ("Leave one out", of, f"contribution: {gain}, measured by leaving it out", lambda o: o.contribution_loo),
        ("Reward", "", "share of the pot, by contribution, work and reliability", lambda o: o.reward),
        ("Reliability", "", "1: every message was in order and in time", lambda o: o.reliability),
        ("CPU time", "s", "of its training and evaluation", lambda o: o.cpu_s),
        ("Energy", "J", "of its training and evaluation", lambda o: o.energy_j),
        ("Sent", "B", "from the owner, exact", lambda o: o.up_bytes),
        ("Received", "B", "by the owner, exact", lambda o: o.down_bytes),
    ]


def _column(owners: Sequence[OwnerResult], title: str, unit: str, note: str, value: Value) -> OwnerColumn:
    factor, name = scale([value(o) for o in owners], unit) if unit in ("B", "J") else (1.0, unit)
    return OwnerColumn(title, name, note, factor, value)


def _line(owner: OwnerResult, columns: Sequence[OwnerColumn]) -> OwnerLine:
    sites = "" if owner.sites == [owner.owner] else ", ".join(owner.sites)
    return OwnerLine(owner.owner, sites, tuple(_cell(owner, column) for column in columns), owner.energy_source or ABSENT)


def _cell(owner: OwnerResult, column: OwnerColumn) -> Cell:
    value = column.value(owner)
    if value is None:
        return Cell(ABSENT, "")
    whole = isinstance(value, int) and column.factor == 1
    return Cell(f"{value:,}" if whole else number(value / column.factor), repr(float(value)))
