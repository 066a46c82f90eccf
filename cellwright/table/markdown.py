"""A table as Markdown, for benchmarks/results and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellwright.report.words import ABSENT, escaped, number, quantity, scale
from cellwright.results import Figure, Interval, TablePart, TableRow, ZooTable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_BEFORE_TRAINING = -3  # the last columns: the difference to ridge, the speed and the end of training
_ERRORS, _SHORT = 4, 3  # significant figures, in the file and in the terminal; there the spread over seeds is left out


def markdown(table: ZooTable) -> str:
    """The whole table, a section a part."""
    head = [f"# {table.title}", "", f"{table.date}, {table.machine}. Reproduce with `{table.command}`.", ""]
    head += [table.about, ""] if table.about else []
    head += [_time(table), ""]
    return "\n".join([*head, *(line for part in table.parts for line in _part(table, part))]).rstrip() + "\n"


def terminal(table: ZooTable) -> RenderableType:
    """The errors and costs of all models, for 140 columns; everything else is in the Markdown."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for part in table.parts:
        best = _best(part).replace("**", "")
        parts += [Text(), Text(f"{part.title}: test span, {part.unit}", style="bold"), _terminal_rows(table, part), Text(best)]
    return Group(*parts, Text(), Text(_time(table).replace("**", "")))


def _terminal_rows(table: ZooTable, part: TablePart) -> Table:
    from rich import box
    from rich.table import Table

    head, _, *body = _cells(table, part, _SHORT)
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in head[:_BEFORE_TRAINING]:
        shown.add_column(title, justify="left" if title in ("model", "sees") else "right", no_wrap=title == "model")
    for row, line in zip(part.rows, body, strict=True):
        shown.add_row(*line[:_BEFORE_TRAINING], style="bold" if row.key == part.best_key else None)
    return shown


def _time(table: ZooTable) -> str:
    minutes = table.wall_s / 60
    limit = "" if table.minutes is None else f", of the {table.minutes} allowed"
    over = "" if table.minutes is None or minutes <= table.minutes else " **It took longer than that.**"
    figure = f"{minutes:.{0 if minutes >= 10 else 1}f} minutes"
    return f"Training and scoring of everything, attempts that were killed left out, took {figure}{limit}.{over}"


def _part(table: ZooTable, part: TablePart) -> list[str]:
    about = (
        f"{part.data.sites:,} sites, {part.data.rows:,} rows (version {part.data.hash[:8]}); {part.history} steps in, {part.horizon} out; "
        f"{part.test_windows:,} test windows. Errors are of the test span, in {part.unit}, mean ± standard deviation over the seeds "
        f"{', '.join(map(str, part.seeds))}; a model without a ± trained with the first alone. Models are in the order of their "
        "validation error; costs and the difference to ridge are of the first seed."
    )
    lines = [f"## {part.title}", "", about, "", _best(part), "", *_rows(table, part), ""]
    if notes := [f"- {row.title}: {_notes(row)}" for row in part.rows if row.notes]:
        lines += ["Notes", "", *notes, ""]
    if part.failures:
        lines += ["Failed", "", *(f"- {f.key}: {escaped(f.reason)}" for f in part.failures), ""]
    return lines


def _notes(row: TableRow) -> str:
    return "; ".join(f"{name}: {value}" for name, value in row.notes.items())


def _best(part: TablePart) -> str:
    title = next(row.title for row in part.rows if row.key == part.best_key)
    mae, rmse = part.best_test.get("mae"), part.best_test.get("rmse")
    sentence = (
        f"**Best single model, by the validation span:** {title} (seed {part.best_seed}), validation MAE "
        f"{number(part.best_validation_mae, _ERRORS)}; on the test span MAE {number(mae, _ERRORS)}, RMSE {number(rmse, _ERRORS)}."
    )
    return f"{sentence} {_against(part.best_to_ridge)}".strip()


def _against(pair: Interval | None) -> str:
    if pair is None:
        return ""
    zero = "contains 0" if pair.tie else "excludes 0"
    return (
        f"Its MAE less ridge's is {number(pair.difference)} [{number(pair.low)}, {number(pair.high)}] "
        f"(95 %, paired, blocks of {pair.block_steps} windows): the interval {zero}."
    )


def _rows(table: ZooTable, part: TablePart) -> list[str]:
    return ["| " + " | ".join(escaped(cell) for cell in line) + " |" for line in _cells(table, part, _ERRORS)]


def _cells(table: ZooTable, part: TablePart, digits: int) -> list[list[str]]:
    """Head, rule and body."""
    shown = [c for c in table.columns if any(row.kpis.get(c) is not None for row in part.rows)]
    scales = {c: scale([f.mean for row in part.rows if (f := row.kpis.get(c))], part.kpi_units[c]) for c in shown}
    head = ["model", "sees", "validation MAE"]
    head += [f"{part.kpi_titles[c]} {_arrow(part, c)}{_unit(part, c, scales[c][1])}" for c in shown]
    head += ["MAE less ridge's", "windows/s", "training"]
    return [head, ["---"] * len(head), *(_row(row, shown, scales, digits) for row in part.rows)]


def _arrow(part: TablePart, kpi: str) -> str:
    return "↓" if part.kpi_lower_is_better[kpi] else "↑"


def _unit(part: TablePart, kpi: str, unit: str) -> str:
    """Errors are in the unit that the section's head names."""
    return f" ({unit})" if unit and unit != part.unit else ""


def _row(row: TableRow, shown: Sequence[str], scales: dict[str, tuple[float, str]], digits: int) -> list[str]:
    cells = [row.title, f"{row.inputs}{f', {row.nodes} nodes' if row.inputs == 'patch' else ''}"]
    cells.append(_figure(row.validation_mae, 1.0, digits))
    cells += [_figure(row.kpis.get(c), scales[c][0], digits) for c in shown]
    cells.append(_short(row.to_ridge))
    cells.append(ABSENT if row.windows_per_s is None else number(row.windows_per_s))
    return [*cells, _training(row)]


def _figure(figure: Figure | None, factor: float, digits: int) -> str:
    if figure is None:
        return ABSENT
    mean = number(figure.mean / factor, digits)
    if figure.deviation is None or digits < _ERRORS:
        return mean
    places = len(mean.partition(".")[2])  # the spread as finely as the mean
    return f"{mean} ± {figure.deviation / factor:.{places}f}"


def _short(pair: Interval | None) -> str:
    if pair is None:
        return ABSENT
    return f"{number(pair.difference)} [{number(pair.low)}, {number(pair.high)}]"


def _training(row: TableRow) -> str:
    """ "budget of 30 s, 12 epochs of 100,000 windows" """
    if set(row.statuses) == {"closed form"}:
        return f"closed form, {quantity(row.train_s, 's')}"
    ended = ", ".join(f"{row.statuses.count(s)}× {s}" if len(set(row.statuses)) > 1 else s for s in dict.fromkeys(row.statuses))
    windows = "all" if row.windows_per_epoch is None else f"{row.windows_per_epoch:,}"
    return f"{ended}; {row.train_s:.0f} of {row.budget_s:g} s, {row.epochs:.0f} epochs of {windows} windows"
