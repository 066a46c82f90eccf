"""Numbers and tables as people read them; shared by the page, the model card and MLflow's notes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from cellwright.results import Leaderboard, Row

ABSENT = "–"
_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "B": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")),
    "J": ((1e6, "MJ"), (1e3, "kJ"), (1, "J"), (1e-3, "mJ"), (1e-6, "µJ")),
    "s": ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "ms": ((1e3, "s"), (1, "ms"), (1e-3, "µs")),
    "g": ((1e3, "kg"), (1, "g"), (1e-3, "mg"), (1e-6, "µg")),
}
_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant figures, whole numbers in full up to 9,999, thousands marked, no exponent between 1e-4 and 1e9."""
    if value is None or not math.isfinite(value):
        return ABSENT
    size = abs(value)
    if value == 0 or (size < 1e9 and size >= 10**digits):
        return f"{value:,.0f}".replace("-", "−")
    if size < 1e-4 or size >= 1e9:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    places = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{places}f}".replace("-", "−")


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    """A value with its unit, in the scale that reads best: 5300 J -> `5.30 kJ`, a count of 1200000 -> `1.20 M`."""
    if value is None or not math.isfinite(value):
        return ABSENT
    factor, name = scale([value], unit)
    return f"{number(value / factor, digits)} {name}".strip()


def scale(values: Iterable[float | None], unit: str) -> tuple[float, str]:
    """(factor to divide by, unit) in which all the values together read shortest; those of a plain number are (1, "")."""
    known = [v for v in values if v is not None and math.isfinite(v) and v != 0]
    steps = _COUNTS if unit in ("", "1", "count") else _SCALES.get(unit)
    if not known or steps is None:
        return 1.0, "" if unit == "1" else unit
    return min(steps, key=lambda step: sum(len(number(v / step[0])) for v in known))


def exact(value: float, unit: str) -> str:
    """A value that is known exactly, without the zeros that `quantity` ends on: 600 s -> `10 min`."""
    steps = _SCALES.get(unit, ((1.0, unit),))
    factor, name = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    return f"{value / factor:g} {name}".strip()


def every_nth(stride: int) -> str:
    """What is to be said of windows that were left out; nothing where all were scored."""
    return "" if stride == 1 else f", one in {stride}"


def columns(board: Leaderboard) -> list[str]:
    """KPIs that any row has, in the leaderboard's own order."""
    return [kpi for kpi in board.kpi_titles if any(row.kpis.get(kpi) is not None for row in board.rows)]


def markdown_table(board: Leaderboard, most: int = 6) -> str:
    """The leaderboard with its first `most` KPIs, as Markdown."""
    kpis = columns(board)[:most]
    head = ["#", "model", *(board.kpi_titles[k] for k in kpis), "status"]
    rows = [[str(r.rank), f"{r.title}{_mark(board, r)}", *_cells(board, r, kpis), r.status] for r in board.rows]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(escaped(cell) for cell in line)} |" for line in lines)


def escaped(text: str) -> str:
    """Text that stays one cell of a Markdown table, and no HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


def _mark(board: Leaderboard, row: Row) -> str:
    return " ★" if row.key == board.choice.key else ""


def _cells(board: Leaderboard, row: Row, kpis: list[str]) -> list[str]:
    return [quantity(row.kpis.get(kpi), board.kpi_units.get(kpi, "")) for kpi in kpis]
