"""From the runs of a table to its rows: one a model, its seeds together."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cellwright.errors import CellwrightError
from cellwright.panel import Panel
from cellwright.ranking.sentence import REFERENCE
from cellwright.results import Failure, Figure, Interval, Leaderboard, Scored, TablePart, TableRow, Trained
from cellwright.runs import params_of
from cellwright.training.batches import LEAST_ORIGINS
from cellwright.training.candidates import resolve
from cellwright.workspace import Workspace
from models._contract import Network


@dataclass(frozen=True)
class Finished:
    """One run of a part."""

    seed: int
    ws: Workspace
    wall_s: float


@dataclass(frozen=True)
class _One:
    """One model of one run."""

    seed: int
    trained: Trained
    scored: Scored


def windows_per_s(ws: Workspace, key: str) -> float | None:
    """Training windows of one site a second, validation between epochs included; None for a closed form."""
    path = ws.candidate(key) / "history.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    if not lines:
        return None
    last, trained = json.loads(lines[-1]), Trained.read(ws.candidate(key) / "candidate.json")
    return float(last["step"]) * _windows_a_step(trained) / float(last["elapsed_s"])


def _windows_a_step(trained: Trained) -> int:
    """Windows of one site; a network of all sites takes whole origins, and a few of them at least (see `batches.Pool`)."""
    batch, sites = int(trained.settings["batch"]), int(trained.data.sites)
    return batch if trained.problem["inputs"] != "all" else max(LEAST_ORIGINS, batch // sites) * sites


def further_seeds(ws: Workspace, slower_than: float) -> tuple[str, ...]:
    """Candidates of a run that train again with another seed: those that draw at random, and are not slower than that.

    Ridge is among them for the comparison. None if no other is.
    """
    params = params_of(ws)
    schema = Panel.open(ws.panel(params.dataset)).schema
    found = [key for key in params.train.models if _trains_again(ws, key, resolve(params, schema, key).network, slower_than)]
    return tuple(key for key in params.train.models if key in found or key == REFERENCE) if found else ()


def _trains_again(ws: Workspace, key: str, network: type[Network], slower_than: float) -> bool:
    record = ws.candidate(key) / "candidate.json"
    if not record.is_file() or Trained.read(record).status == "failed":
        return False
    if network.closed_form:
        return bool(network.fitter)  # trees draw their rows; least squares draw nothing
    speed = windows_per_s(ws, key)
    return speed is None or speed >= slower_than


def part(title: str, runs: Sequence[Finished]) -> TablePart:
    """The rows of one data set, best mean validation error first.

    Raises:
        CellwrightError: no run scored anything.
    """
    board = Leaderboard.read(runs[0].ws.leaderboard)
    ones = [one for run in runs for one in _of_run(run)]
    if not ones:
        raise CellwrightError(f"{title}: no candidate has a score")
    if unmeasured := [one.trained.key for one in ones if one.scored.validation["mae"] is None]:
        raise CellwrightError(f"{title}: no target of the validation span was measured for {unmeasured[0]}; choose another split")
    keys = list(dict.fromkeys(one.trained.key for one in ones))
    rows = [_row(_counted([one for one in ones if one.trained.key == key]), runs) for key in keys]
    whole = [one for one in ones if one.trained.status != "halved"] or ones  # what was dropped early cannot win
    best = min(whole, key=lambda one: one.scored.validation["mae"] or float("inf"))
    return TablePart(
        title=title,
        data=board.data,
        unit=board.unit,
        history=board.history,
        horizon=board.horizon,
        test_windows=board.test_windows,
        runs=[run.ws.run for run in runs],
        seeds=[run.seed for run in runs],
        rows=sorted(rows, key=lambda row: row.validation_mae.mean),
        failures=_failures(runs),
        best_key=best.trained.key,
        best_seed=best.seed,
        best_validation_mae=float(best.scored.validation["mae"] or 0.0),
        best_test=best.scored.test,
        best_to_ridge=_to_ridge(best.scored),
        kpi_titles=board.kpi_titles,
        kpi_units=board.kpi_units,
        kpi_lower_is_better=board.kpi_lower_is_better,
        wall_s=sum(run.wall_s for run in runs),
    )


def _of_run(run: Finished) -> list[_One]:
    board = Leaderboard.read(run.ws.leaderboard)
    return [
        _One(run.seed, Trained.read(run.ws.candidate(row.key) / "candidate.json"), Scored.read(run.ws.score(row.key)))
        for row in board.rows
    ]


def _counted(ones: Sequence[_One]) -> list[_One]:
    """Of a closed form that was fitted again for the comparison alone, the first."""
    return list(ones[:1] if ones[0].trained.key == REFERENCE else ones)


def _failures(runs: Sequence[Finished]) -> list[Failure]:
    found: dict[str, Failure] = {}
    for run in runs:
        for failure in Leaderboard.read(run.ws.leaderboard).failures:
            found.setdefault(failure.key, failure)
    return list(found.values())


def _row(ones: Sequence[_One], runs: Sequence[Finished]) -> TableRow:
    first = ones[0]
    trained = first.trained
    errors = {name: _figure([one.scored.test.get(name) for one in ones]) for name in first.scored.test}
    costs = {name: _figure([value]) for name, value in first.scored.cost.items()}
    ws = next(run.ws for run in runs if run.seed == first.seed)
    return TableRow(
        key=trained.key,
        title=first.scored.title,
        inputs=str(trained.problem["inputs"]),
        nodes=int(trained.problem["nodes"]),
        seeds=[one.seed for one in ones],
        validation_mae=_validation(ones),
        kpis={**errors, **costs},
        statuses=[one.trained.status for one in ones],
        budget_s=float(trained.settings["budget_s"] or trained.train_s),  # a federation may have none
        train_s=statistics.fmean(one.trained.train_s for one in ones),
        epochs=statistics.fmean(one.trained.epochs for one in ones),
        windows_per_epoch=trained.settings["windows_per_epoch"],
        windows_per_s=windows_per_s(ws, trained.key),
        to_ridge=_to_ridge(first.scored),
        notes=trained.notes,
    )


def _validation(ones: Sequence[_One]) -> Figure:
    values = [float(one.scored.validation["mae"] or 0.0) for one in ones]  # each was measured: `part` has looked
    return Figure(mean=statistics.fmean(values), deviation=statistics.stdev(values) if len(values) > 1 else None)


def _figure(values: Sequence[float | None]) -> Figure | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Figure(mean=statistics.fmean(known), deviation=statistics.stdev(known) if len(known) > 1 else None)


def _to_ridge(scored: Scored) -> Interval | None:
    return next((pair for pair in scored.test_pairs if pair.other == REFERENCE), None)
