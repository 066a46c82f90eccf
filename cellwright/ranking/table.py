"""The leaderboard for the terminal; made for 100 columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cellwright.ranking.sentence import figure
from cellwright.report.words import ABSENT, columns, every_nth, number, scale
from cellwright.results import Leaderboard, Row

MOST_KPIS = 5
_STYLES = {"converged": "green", "closed form": "green", "budget": "yellow", "max_epochs": "yellow", "halved": "yellow"}


def render(board: Leaderboard, *, everything: bool = False) -> RenderableType:
    """Leaderboard, champion with its reason, noise floor, energy, and what failed; with `everything` also all other KPIs."""
    parts: list[RenderableType] = [Text(_headline(board), style="bold"), _table(board, main_kpis(board)), _legend(board), Text()]
    parts += _by_group(board) if everything else []
    parts.append(Text.assemble(("champion  ", "bold green"), board.choice.sentence))
    parts.append(Text.assemble(("energy    ", "bold"), _energy(board)))
    parts += [Text.assemble((f"failed    {f.key}: ", "bold red"), f.reason) for f in board.failures]
    return Group(*parts)


def _headline(board: Leaderboard) -> str:
    return (
        f"{board.data.dataset}: {board.data.sites:,} sites, {board.history} steps in, {board.horizon} out, "
        f"{', '.join(board.targets)}; errors over {board.test_windows:,} test windows{every_nth(board.stride)}"
    )


def _by_group(board: Leaderboard) -> Iterator[RenderableType]:
    """What the main table leaves out, under the headings of the KPIs' groups, a few columns at a time."""
    groups = {name: board.kpi_groups.get(name, "") for name in columns(board)[len(main_kpis(board)) :]}
    for group in dict.fromkeys(groups.values()):
        kpis = [name for name in groups if groups[name] == group]
        for first in range(0, len(kpis), MOST_KPIS):
            yield Text(f"{group}{', continued' if first else ''}", style="bold")
            yield _table(board, kpis[first : first + MOST_KPIS], alone=False)
        if group == "calibration" and any(row.coverage for row in board.rows):
            yield _coverage(board)


def _coverage(board: Leaderboard) -> Table:
    """Observed coverage of each nominal one: the errors above do not say to which side."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    nominal = next(list(row.coverage) for row in board.rows if row.coverage)
    table.add_column("model", no_wrap=True)
    for share in nominal:
        table.add_column(f"observed in the\n{100 * float(share):.0f} % interval", justify="right")
    for row in board.rows:
        table.add_row(_name(board, row), *(f"{100 * row.coverage[s]:.1f} %" if s in row.coverage else ABSENT for s in nominal))
    return table


def _table(board: Leaderboard, kpis: list[str], *, alone: bool = True) -> Table:
    """Ranks, models and `kpis`; `alone`: with score and status too."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("model", no_wrap=True)
    if alone:
        table.add_column("score", justify="right", no_wrap=True)
    scales = {name: scale([row.kpis.get(name) for row in board.rows], board.kpi_units[name]) for name in kpis}
    for name in kpis:
        unit = scales[name][1]
        table.add_column(f"{board.kpi_titles[name]}\n{unit}", justify="right")
    if alone:
        table.add_column("trained", no_wrap=True)
    best = {name: _best(board, name) for name in kpis}
    for row in board.rows:
        cells = [_cell(row.kpis.get(name), scales[name][0], best[name]) for name in kpis]
        ends = ([f"{row.score:.2f}"], [_status(row)]) if alone else ([], [])
        table.add_row(str(row.rank), _name(board, row), *ends[0], *cells, *ends[1], style=_row_style(board, row))
    if board.noise_floor and alone:
        _add_noise_floor(table, board, kpis)
    return table


def main_kpis(board: Leaderboard) -> list[str]:
    """The first KPIs that any candidate has: those with a weight come first."""
    return columns(board)[:MOST_KPIS]


def _best(board: Leaderboard, name: str) -> float | None:
    known = [value for row in board.rows if (value := row.kpis.get(name)) is not None]
    return (min if board.kpi_lower_is_better[name] else max)(known, default=None)


def _cell(value: float | None, factor: float, best: float | None) -> Text:
    if value is None:
        return Text(ABSENT, style="dim")
    return Text(number(value / factor, 4), style="bold" if value == best else "")


def _name(board: Leaderboard, row: Row) -> str:
    mark = " ★" if row.key == board.choice.key else " ≈" if row.similar_to_champion else ""
    return f"{escape(row.title)}{mark}{' ◆' if row.on_front else ''}"


def _status(row: Row) -> Text:
    return Text(row.status.replace("_", " "), style=_STYLES.get(row.status, ""))


def _row_style(board: Leaderboard, row: Row) -> str:
    if row.key == board.choice.key:
        return "on grey15"
    return "dim" if row.beats_ridge is False else ""


def _add_noise_floor(table: Table, board: Leaderboard, kpis: list[str]) -> None:
    """The error that no model can go below, in the column of the MAE."""
    floors = [value for target, value in (board.noise_floor or {}).items() if target in board.targets]
    if not floors or "mae" not in kpis:
        return
    factor = scale([row.kpis.get("mae") for row in board.rows], board.kpi_units["mae"])[0]
    floor = Text(number(sum(floors) / len(floors) / factor, 4), style="dim italic")
    table.add_section()
    table.add_row("", "[dim italic]noise floor[/]", "", *(floor if name == "mae" else "" for name in kpis), "")


def _legend(board: Leaderboard) -> Text:
    parts = ["★ chosen"]
    if board.choice.similar:
        parts.append("≈ as accurate")
    parts.append("◆ Pareto front of accuracy and energy")
    if any(row.beats_ridge is False for row in board.rows):
        parts.append("dim: does not beat ridge")
    return Text("   ".join(parts), style="dim")


def _energy(board: Leaderboard) -> str:
    if board.total_energy_j is None:
        return "not known: no meter and no model on this machine (`cellwright doctor` says why)"
    return f"{figure(board.total_energy_j)} J for all trainings, {board.energy_source}; {figure(board.total_s)} s of training"
