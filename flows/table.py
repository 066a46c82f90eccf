"""The table: every model of a recipe on each of its data sets, with several seeds."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow

from cellwright import runs
from cellwright.energy.meter import idle_baseline
from cellwright.files import read_json, write_json, write_text
from cellwright.params import Params
from cellwright.results import DataVersion, TablePart, ZooTable
from cellwright.table import recipe as recipes
from cellwright.table import rows
from cellwright.table.markdown import markdown
from cellwright.training.workers import Workers
from cellwright.workspace import Workspace
from flows._catalogue import ROOT
from flows._chain import train_all
from flows._hooks import notify
from flows._runners import pool, task_runner
from tasks._run import say
from tasks.prepare_data import prepare_data
from tasks.rank import rank_candidates
from tasks.score import score_candidates

RESULTS = Path("benchmarks") / "results"
_WALL = "table.json"  # in a run's folder: how long it took, over all its attempts


@flow(
    name="table",
    flow_run_name="table {recipe}",
    description="Train and score every model of a recipe, with several seeds, and write the table.",
    on_failure=[notify],
    on_crashed=[notify],
    validate_parameters=True,
)
def table(recipe: str = "benchmarks/recipes/zoo.yaml", results: str = str(RESULTS)) -> str:
    """Make the table of a recipe; returns the path of its Markdown, beside which a JSON file holds every KPI.

    What is done already is not done again: an interrupted table goes on where it ended. Nothing is registered or published.

    Raises:
        CellwrightError: what stopped it, with what to do.
    """
    path = ROOT / recipe
    asked = recipes.read(path)
    for part in asked.parts:
        recipes.params_of(part, ROOT, part.seeds[0])  # a wrong parameter is told before anything heavy starts
    parts = [_part(part) for part in asked.parts]
    done = ZooTable(
        title=asked.title,
        about=asked.about,
        date=datetime.now(UTC).date().isoformat(),
        machine=_machine(),
        command=f"cellwright table {recipe}",
        columns=list(asked.columns),
        minutes=asked.minutes,
        parts=parts,
    )
    target = ROOT / results / f"{done.date}-{path.stem}.md"
    done.save(target.with_suffix(".json"))
    write_text(target, markdown(done))
    say(f"table    {target.relative_to(ROOT) if target.is_relative_to(ROOT) else target}")
    return str(target)


def _part(part: recipes.Part) -> TablePart:
    """All seeds of one data set, the first one with every model."""
    title = part.title or part.dataset
    first = recipes.params_of(part, ROOT, part.seeds[0])
    idle_baseline(first.energy)  # before anything is busy
    version = prepare_data(str(ROOT), part.dataset)
    with pool(first.runner) as workers:
        done = [_run(first, version, workers, title)]
        again = rows.further_seeds(done[0].ws, part.one_seed_below_per_s)
        seeds = part.seeds[1:] if again else ()
        done += [_run(recipes.params_of(part, ROOT, seed, again), version, workers, title) for seed in seeds]
    return rows.part(title, done)


def _run(params: Params, version: DataVersion, workers: Workers | None, title: str) -> rows.Finished:
    """Train, score and rank with one seed, or find it done."""
    ws = runs.open_run(params, ROOT, version)
    if not ws.leaderboard.is_file():
        say(f"table    {title}, seed {params.train.seed}: {len(params.train.models)} models in {ws.run}")
        _compute(params, ws, workers)
    return rows.Finished(params.train.seed, ws, _wall_s(ws))


def _compute(params: Params, ws: Workspace, workers: Workers | None) -> None:
    root, began = str(ws.root), time.monotonic()
    with runs.locked(ws):
        try:
            train_all.with_options(task_runner=task_runner(params.runner))(root, ws.run, workers, {})
            score_candidates(root, ws.run)
            rank_candidates(root, ws.run)
        finally:
            write_json(ws.run_folder / _WALL, {"wall_s": _wall_s(ws) + time.monotonic() - began})


def _wall_s(ws: Workspace) -> float:
    path = ws.run_folder / _WALL
    return float(read_json(path)["wall_s"]) if path.is_file() else 0.0


def _machine() -> str:
    """ "2 cores of a x86_64, Linux" """
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, {platform.system()}"
