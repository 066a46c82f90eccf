"""The scorecard as people read it: a row a KPI, a column a finalist, in groups, with what each value says and rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cellwright.report.record import Record
from cellwright.report.words import ABSENT, escaped, number, quantity
from cellwright.results import Scorecard

# KPIs of the leaderboard that belong beside the dear ones, and what they say.
_CHEAP = {
    "latency_p50_ms": "the time of one forecast, as it usually is",
    "jitter_ms": "how far the slowest forecasts of a hundred lie behind the usual one",
    "energy_per_1000_j": "energy of 1,000 forecasts",
    "cost_per_1000_forecasts": "price of 1,000 forecasts: CPU time and energy",
    "cost_train": "price of its training",
}
_CHEAP_GROUP = "cost and return"
_GROWTH = ("robustness_", "generalisation_area")
_SHARES = ("seed_spread", "inputs_for_90", "units_noticed")
_FACTOR_FROM = 10.0  # growth of a row that reads better as a factor: × 12,640


@dataclass(frozen=True)
class Cell:
    """One value of one finalist; `reason`: why there is none; `note`: what it rests on."""

    text: str
    best: bool
    reason: str
    note: str


@dataclass(frozen=True)
class Line:
    """A KPI."""

    title: str
    plain: str
    better: str  # "lower" or "higher"
    cells: tuple[Cell, ...]

    @property
    def shared_note(self) -> str:
        """What the values of all finalists rest on, if it is one and the same."""
        notes = {cell.note for cell in self.cells}
        return next(iter(notes)) if len(notes) == 1 else ""

    @property
    def shared_reason(self) -> str:
        """The reason that every finalist has no value, if it is one and the same."""
        reasons = {cell.reason for cell in self.cells}
        return next(iter(reasons)) if len(reasons) == 1 else ""


@dataclass(frozen=True)
class Group:
    """KPIs that belong together."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Table:
    """The whole scorecard: who is in it, and the groups."""

    finalists: tuple[str, ...]
    groups: tuple[Group, ...]


def table(card: Scorecard, record: Record | None = None) -> Table:
    """The scorecard as a table; with `record`, the costs of its leaderboard stand beside the dear KPIs."""
    order = list(dict.fromkeys(card.kpi_groups[name] for name in card.kpi_titles))
    order.sort(key=_place)
    cheap = list(_cheap(card, record)) if record is not None else []
    groups = [Group(group, (*(cheap if group == _CHEAP_GROUP else []), *_dear(card, group))) for group in order]
    return Table(tuple(f.title for f in card.finalists), tuple(groups))


def _place(group: str) -> int:
    known = ("robustness", "stability", "generalisation", "interpretability", _CHEAP_GROUP)
    return known.index(group) if group in known else len(known)


def _dear(card: Scorecard, group: str) -> Iterator[Line]:
    for name, title in card.kpi_titles.items():
        if card.kpi_groups[name] != group:
            continue
        values = [f.kpis.get(name) for f in card.finalists]
        lower, great = card.kpi_lower_is_better[name], any(v is not None and v >= _FACTOR_FROM for v in values)
        cells = tuple(
            Cell(
                said(name, value, card.kpi_units[name], as_factor=great),
                _is_best(value, values, lower),
                f.reasons.get(name, ""),
                f.notes.get(name, ""),
            )
            for f, value in zip(card.finalists, values, strict=True)
        )
        yield Line(title, card.kpi_plain[name], _better(lower), cells)


def _cheap(card: Scorecard, record: Record) -> Iterator[Line]:
    board = record.board
    rows = {row.key: row.kpis for row in board.rows}
    for name, plain in _CHEAP.items():
        values = [rows.get(f.key, {}).get(name) for f in card.finalists]
        if any(value is not None for value in values):
            lower = board.kpi_lower_is_better[name]
            cells = tuple(Cell(quantity(v, board.kpi_units[name]), _is_best(v, values, lower), "", "") for v in values)
            yield Line(board.kpi_titles[name], plain, _better(lower), cells)


def _better(lower: bool) -> str:
    return "lower" if lower else "higher"


def _is_best(value: float | None, values: list[float | None], lower: bool) -> bool:
    known = [v for v in values if v is not None]
    return len(set(known)) > 1 and value == (min(known) if lower else max(known))


def said(name: str, value: float | None, unit: str, *, as_factor: bool = False) -> str:
    """A dear KPI's value: growth with its sign, or as a factor; shares in per cent."""
    if value is None:
        return ABSENT
    if name.startswith(_GROWTH):
        return f"× {number(1 + value)}" if as_factor else _per_cent(value)
    return f"{number(100 * value)} %" if name in _SHARES else quantity(value, unit)


def _per_cent(value: float) -> str:
    """Growth with its sign; 0.0 % has none."""
    text = f"{value:+.1%}"
    return "0.0 %" if text in ("+0.0%", "-0.0%") else text.replace("%", " %").replace("-", "−")


def markdown(card: Scorecard) -> str:
    """The scorecard as Markdown, reasons below it."""
    shown = table(card)
    head = ["KPI", *shown.finalists]
    lines = [f"| {' | '.join(map(escaped, head))} |", f"|{'---|' * len(head)}"]
    for group in shown.groups:
        lines.append(f"| **{group.title}** |{' |' * len(shown.finalists)}")
        lines += [
            f"| {' | '.join(escaped(c) for c in (line.title, *(cell.text for cell in line.cells)))} |" for line in group.lines
        ]
    reasons = [
        f"- {escaped(f.title)}, {escaped(card.kpi_titles[k])}: {escaped(why)}"
        for f in card.finalists
        for k, why in f.reasons.items()
    ]
    return "\n".join([*lines, "", *(["Without a value:", "", *reasons] if reasons else [])])
