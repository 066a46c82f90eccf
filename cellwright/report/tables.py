"""The report's tables: columns in the unit that reads best, cells as text with the number they sort by."""

from __future__ import annotations

from dataclasses import dataclass

from cellwright.report.record import Candidate, Record
from cellwright.report.words import ABSENT, columns, number, quantity, scale
from cellwright.results import Row

STATUS_WORDS = {
    "converged": "converged",
    "budget": "budget ended it",
    "max_epochs": "epoch limit",
    "closed form": "closed form",
    "failed": "failed",
}


@dataclass(frozen=True)
class Column:
    """A KPI as a column."""

    key: str
    title: str
    unit: str
    better: str  # "lower" or "higher"


@dataclass(frozen=True)
class Cell:
    """`sort`: the number it sorts by, "" where there is none."""

    text: str
    sort: str
    best: bool


@dataclass(frozen=True)
class Line:
    """A candidate as a row."""

    rank: int
    key: str
    title: str
    chosen: bool
    on_front: bool
    tie: bool
    beats_ridge: bool | None
    status: str
    status_word: str
    reason: str
    score: Cell
    cells: list[Cell]


@dataclass(frozen=True)
class Tried:
    """What did not work, and why."""

    title: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Spent:
    """Energy of one training, by part."""

    title: str
    parts: list[str]
    total: str
    source: str
    cpu_s: str
    note: str


def leaderboard(record: Record) -> tuple[list[Column], list[Line]]:
    """Columns and rows, in the order of rank."""
    board = record.board
    kpis = columns(board)
    scales = {k: scale([r.kpis.get(k) for r in board.rows], board.kpi_units.get(k, "")) for k in kpis}
    heads = [
        Column(k, board.kpi_titles[k], scales[k][1], "lower" if board.kpi_lower_is_better.get(k, True) else "higher")
        for k in kpis
    ]
    best = {k: _best([r.kpis.get(k) for r in board.rows], board.kpi_lower_is_better.get(k, True)) for k in kpis}
    lines = [_line(record, c, kpis, scales, best) for c in record.candidates if c.row is not None]
    return heads, lines


def tried(record: Record) -> list[Tried]:
    """Failures first, then what did not earn its energy, then what its budget cut short."""
    failed = [Tried(c.title, "failed", c.failure) for c in record.candidates if c.failure]
    rows = [(c, c.row) for c in record.candidates if c.row is not None]
    worse = [Tried(c.title, "does not beat ridge", _behind(record, r)) for c, r in rows if r.beats_ridge is False]
    cut = [Tried(c.title, "ended by its budget", _reason(c)) for c, r in rows if r.status == "budget"]
    return failed + worse + cut


def energy(record: Record) -> list[Spent]:
    """Energy of each training, by part with its source."""
    lines = []
    for c in record.candidates:
        if c.trained is None:
            continue
        reading = c.trained.energy
        if reading is None:
            lines.append(Spent(c.title, [ABSENT] * 3, ABSENT, "not metered", number(c.trained.cpu_s), ""))
            continue
        parts = [
            f"{quantity(r.energy_j, 'J')}{f' ({r.source})' if r.source else ''}" for r in (reading.cpu, reading.ram, reading.gpu)
        ]
        note = "others ran at the same time" if reading.shared else "ran alone"
        total = quantity(reading.energy_j, "J")
        lines.append(Spent(c.title, parts, total, reading.source or "no meter", number(reading.cpu_s), note))
    return lines


def _line(
    record: Record, candidate: Candidate, kpis: list[str], scales: dict[str, tuple[float, str]], best: dict[str, float | None]
) -> Line:
    row, board = candidate.row, record.board
    assert row is not None
    cells = [_cell(row.kpis.get(k), scales[k][0], best[k]) for k in kpis]
    return Line(
        rank=row.rank,
        key=row.key,
        title=row.title,
        chosen=row.key == board.choice.key,
        on_front=row.on_front,
        tie=row.similar_to_champion and row.key != board.choice.key,
        beats_ridge=row.beats_ridge,
        status=row.status,
        status_word=STATUS_WORDS.get(row.status, row.status),
        reason=_reason(candidate),
        score=_cell(row.score, 1.0, max(r.score for r in board.rows)),
        cells=cells,
    )


def _cell(value: float | None, factor: float, best: float | None) -> Cell:
    if value is None:
        return Cell(ABSENT, "", False)
    return Cell(number(value / factor), repr(float(value)), value == best)


def _best(values: list[float | None], lower: bool) -> float | None:
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return None
    return min(known) if lower else max(known)


def _reason(candidate: Candidate) -> str:
    return candidate.trained.reason if candidate.trained is not None else ""


def _behind(record: Record, row: Row) -> str:
    mae, ridge = row.kpis.get("mae"), next((r.kpis.get("mae") for r in record.board.rows if r.key == "ridge"), None)
    if mae is None or ridge is None:
        return "its paired interval against ridge does not lie below 0"
    words = f"test MAE {number(mae)} against ridge's {number(ridge)} {record.board.unit}"
    return f"{words}; its paired interval against ridge does not lie below 0 on the validation span"
