"""The report's tables: columns in the unit that reads best, cells as text with the number they sort by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cellwright.report.record import Candidate, Record
from cellwright.report.words import ABSENT, columns, number, quantity, scale
from cellwright.results import Leaderboard, Row, Trained

_MAIN = ("mae", "rmse", "r2", "ssim", "train_energy_j", "energy_per_1000_j", "latency_p99_ms", "bundle_bytes")
_ENERGY = "train_energy_j"
STATUS_WORDS = {
    "converged": "converged",
    "budget": "budget ended it",
    "max_epochs": "epoch limit",
    "closed form": "closed form",
    "halved": "dropped early",
    "failed": "failed",
}


@dataclass(frozen=True)
class Column:
    """A KPI as a column."""

    key: str
    title: str
    unit: str
    factor: float  # values are divided by it
    better: str  # "lower" or "higher"
    best: float | None
    main: bool  # shown at once; the others when they are asked for
    group: str  # "accuracy", "calibration", "fairness", "cost"


@dataclass(frozen=True)
class Cell:
    """`sort`: the number it sorts by, "" where there is none."""

    text: str
    sort: str
    best: bool = False
    main: bool = True
    group: str = ""


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
    ranked_by: str  # the KPI: a finalist's is measured again, alone
    cpu_s: str
    note: str


def leaderboard(record: Record, weighted: Collection[str]) -> tuple[list[Column], list[Line]]:
    """Columns and rows, in the order of rank; the main columns come first. `weighted`: KPIs that the score is made of."""
    main = {*_MAIN, *weighted}
    kpis = sorted(columns(record.board), key=lambda k: (k not in main, _MAIN.index(k) if k in _MAIN else len(_MAIN)))
    heads = [_column(record.board, kpi, kpi in main) for kpi in kpis]
    return heads, [_line(record, c, c.row, heads) for c in record.candidates if c.row is not None]


def hidden_groups(heads: Sequence[Column]) -> dict[str, int]:
    """Groups that have columns which are not shown at once, and how many."""
    return dict(Counter(head.group for head in heads if not head.main))


def tried(record: Record) -> list[Tried]:
    """Failures first, then what did not earn its energy, then what its budget cut short or halving dropped."""
    failed = [Tried(c.title, "failed", c.failure) for c in record.candidates if c.failure]
    rows = [(c, c.row) for c in record.candidates if c.row is not None]
    worse = [Tried(c.title, "does not beat ridge", _behind(record, r)) for c, r in rows if r.beats_ridge is False]
    cut = [Tried(c.title, "ended by its budget", _reason(c)) for c, r in rows if r.status == "budget"]
    dropped = [
        Tried(c.title, "dropped early", _reason(c)) for c, r in rows if r.status == "halved" and r.beats_ridge is not False
    ]
    return failed + worse + cut + dropped


def energy(record: Record) -> list[Spent]:
    """Energy of each training, by part with its source, as read while it ran, and as it was ranked by."""
    return [_spent(c, c.trained) for c in record.candidates if c.trained is not None]


def _spent(candidate: Candidate, trained: Trained) -> Spent:
    reading, ranked_by, cpu_s = trained.energy, _ranked_by(candidate), number(trained.cpu_s)
    if reading is None:
        return Spent(candidate.title, [ABSENT] * 3, ABSENT, "not metered", ranked_by, cpu_s, "")
    parts = [
        f"{quantity(r.energy_j, 'J')}{f' ({r.source})' if r.source else ''}" for r in (reading.cpu, reading.ram, reading.gpu)
    ]
    note = "others ran at the same time" if reading.shared else "ran alone"
    total, source = quantity(reading.energy_j, "J"), reading.source or "no meter"
    return Spent(candidate.title, parts, total, source, ranked_by, cpu_s, note)


def _ranked_by(candidate: Candidate) -> str:
    value = candidate.row.kpis.get(_ENERGY) if candidate.row is not None else None
    source = candidate.scored.sources.get(_ENERGY, "measured") if candidate.scored is not None else ""
    return f"{quantity(value, 'J')} ({source})" if value is not None else ABSENT


def _column(board: Leaderboard, kpi: str, main: bool) -> Column:
    values = [row.kpis.get(kpi) for row in board.rows]
    lower = board.kpi_lower_is_better.get(kpi, True)
    factor, unit = scale(values, board.kpi_units.get(kpi, ""))
    better, group = "lower" if lower else "higher", board.kpi_groups.get(kpi, "other")
    return Column(kpi, board.kpi_titles[kpi], unit, factor, better, _best(values, lower), main, group)


def _line(record: Record, candidate: Candidate, row: Row, heads: Sequence[Column]) -> Line:
    board = record.board
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
        score=Cell(number(row.score), repr(row.score), row.score == max(r.score for r in board.rows)),
        cells=[_cell(row.kpis.get(head.key), head) for head in heads],
    )


def _cell(value: float | None, column: Column) -> Cell:
    if value is None:
        return Cell(ABSENT, "", main=column.main, group=column.group)
    return Cell(number(value / column.factor), repr(float(value)), value == column.best, column.main, column.group)


def _best(values: list[float | None], lower: bool) -> float | None:
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return None
    return min(known) if lower else max(known)


def _reason(candidate: Candidate) -> str:
    if candidate.trained is None:
        return ""
    return "; ".join([candidate.trained.reason, *(f"{name}: {note}" for name, note in candidate.trained.notes.items())])


def _behind(record: Record, row: Row) -> str:
    mae, ridge = row.kpis.get("mae"), next((r.kpis.get("mae") for r in record.board.rows if r.key == "ridge"), None)
    if mae is None or ridge is None:
        return "its paired interval against ridge does not lie below 0"
    words = f"test MAE {number(mae)} against ridge's {number(ridge)} {record.board.unit}"
    return f"{words}; its paired interval against ridge does not lie below 0 on the validation span"
