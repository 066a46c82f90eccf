"""The main job: from raw telemetry to a served champion."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import as_completed
from pydantic import Field

from cellwright import runs
from cellwright.catalogue import load_catalogue
from cellwright.errors import TrainingError
from cellwright.families import members
from cellwright.files import write_json
from cellwright.params import Params, load
from cellwright.results import Leaderboard
from cellwright.workspace import Workspace, find_root
from flows._hooks import notify
from flows._runners import pool, task_runner
from tasks._run import say
from tasks.prepare_data import prepare_data
from tasks.publish import publish_bundle
from tasks.rank import rank_candidates
from tasks.register import register_run
from tasks.report import write_report
from tasks.score import score_candidates
from tasks.train import train_candidate

ROOT = find_root(Path(__file__).parent)
# The form in the Prefect UI offers these as lists to choose from.
DataSet = StrEnum("DataSet", {name: name for name in load_catalogue(ROOT / "data" / "catalogue.yaml").names})  # type: ignore[misc]
Model = StrEnum("Model", {name: name for name in members("models")})  # type: ignore[misc]


@flow(
    name="benchmark",
    flow_run_name="benchmark {dataset}",
    description="Benchmark the models on a data set, register the best one, publish it to the edge.",
    on_failure=[notify],
    on_crashed=[notify],
    validate_parameters=True,
)
def benchmark(
    dataset: Annotated[DataSet | None, Field(description="Data set of the catalogue; empty: that of params.yaml")] = None,
    models: Annotated[list[Model] | None, Field(description="Candidates; empty: those of params.yaml")] = None,
    budget_s: Annotated[float | None, Field(gt=0, description="Training seconds a candidate; empty: as in params.yaml")] = None,
    promote: Annotated[bool, Field(description="Let the winner become the champion if it beats the present one")] = True,
    only_new: Annotated[bool, Field(description="Look for new upstream files first, and stop if there are none")] = False,
    fresh: Annotated[bool, Field(description="Start another run even if this one is finished")] = False,
    overrides: Annotated[list[str] | None, Field(description="section.key=value of params.yaml")] = None,
) -> str:
    """Run the whole chain; returns the run's name. The same parameters resume a run that was interrupted.

    Raises:
        CellwrightError: what stopped it, with what to do.
    """
    params = _params(dataset, models, budget_s, overrides)
    version = prepare_data(str(ROOT), params.dataset, refresh=only_new)
    ws = runs.open_run(params, ROOT, version.hash, anew=fresh)
    if runs.finished(ws):
        say(f"run      {ws.run} is finished; --fresh starts another")
        return ws.run
    with runs.locked(ws):
        say(f"run      {ws.run}")
        _chain(params, ws, promote)
        write_json(ws.run_folder / "finished.json", {"run": ws.run})
    return ws.run


def _chain(params: Params, ws: Workspace, promote: bool) -> Leaderboard:
    root, run = str(ws.root), ws.run
    train_all.with_options(task_runner=task_runner(params.runner))(root, run)
    score_candidates(root, run)
    board = rank_candidates(root, run)
    register_run(root, run, promote and params.register_.promote)
    publish_bundle(root, run)
    write_report(root, run)
    return board


@flow(name="train candidates", flow_run_name="train {run}", validate_parameters=False)
def train_all(root: str, run: str) -> int:
    """Train all candidates of a run side by side; one that fails is listed and stops nobody. Returns how many were trained."""
    ws = Workspace(Path(root), run)
    params = runs.params_of(ws)
    progress = create_progress_artifact(
        progress=0.0, key=f"training-{params.dataset}", description=f"Candidates of {run} trained"
    )
    failed: list[str] = []
    with pool(params.runner) as workers:
        futures = {train_candidate.submit(root, run, key, workers): key for key in params.train.models}
        for done, future in enumerate(as_completed(list(futures)), start=1):
            future.wait()
            if not future.state.is_completed():
                failed.append(futures[future])
                say(f"train    {futures[future]} failed: {_why(future.state)}")
            update_progress_artifact(progress, progress=100.0 * done / len(futures))
    if len(failed) == len(futures):
        raise TrainingError(f"every candidate failed ({', '.join(failed)}); see their reasons above")
    return len(futures) - len(failed)


def _params(dataset: DataSet | None, models: list[Model] | None, budget_s: float | None, overrides: list[str] | None) -> Params:
    given = list(overrides or ())
    given += [f"dataset={dataset.value}"] if dataset else []
    given += [f"train.models=[{', '.join(m.value for m in models)}]"] if models else []
    given += [f"train.budget_s={budget_s}"] if budget_s else []
    return load(ROOT / "params.yaml", given)


def _why(state: object) -> str:
    message = str(getattr(state, "message", "") or "")
    return message.removeprefix("Task run encountered an exception ").strip() or str(state)
