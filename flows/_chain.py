"""The compute part that flows share: train, score, rank, probe, register, publish, report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import as_completed

from cellwright import interruption, runs
from cellwright.errors import TrainingError
from cellwright.files import write_json
from cellwright.params import Params
from cellwright.results import Registered
from cellwright.steps.train import note_failure
from cellwright.training import stopping
from cellwright.training.halving import most_stages, stages
from cellwright.training.workers import Workers
from cellwright.workspace import Workspace
from flows._publication import ask_for_rollout, publication, register_and_publish
from flows._runners import task_runner
from tasks._run import say
from tasks.rank import rank_candidates
from tasks.report import write_report
from tasks.score import score_candidates
from tasks.scorecard import probe_finalists
from tasks.train import train_candidate


def compute(
    params: Params, ws: Workspace, workers: Workers | None, *, promote: bool, warm_start: dict[str, str] | None = None
) -> Registered:
    """Everything after the data, in the run's own folder; a run that was interrupted goes on where it ended.

    The edge serves the new bundle if its version became champion; where a step after registration fails, all of it is taken back.
    `workers`: the processes to train in (see `pool`).
    `warm_start`: candidate -> folder of the forecaster it starts from.

    Raises:
        WorkspaceError: another process works in this run.
        CellwrightError: what a step raises.
    """
    root, run = str(ws.root), ws.run
    with runs.locked(ws):
        say(f"run      {run}")
        train_all.with_options(task_runner=task_runner(params.runner))(root, run, workers, warm_start or {})
        score_candidates(root, run)
        rank_candidates(root, run)
        probe_finalists(root, run, workers)
        with publication(params, ws):
            registered, published = register_and_publish(params, ws, promote=promote and params.register_.promote)
            write_report(root, run)
            write_json(ws.run_folder / "finished.json", {"run": run})
        ask_for_rollout(params, ws, registered, published)
    return registered


@flow(name="train candidates", flow_run_name="train {run}", validate_parameters=False)
def train_all(root: str, run: str, workers: Workers | None, warm_start: dict[str, str]) -> int:
    """Train all candidates of a run side by side; one that fails is listed and stops nobody. Returns how many were trained.

    With `halving.rungs` the weakest are dropped on the way; they count as trained.

    Raises:
        TrainingError: all of them failed.
    """
    ws = Workspace(Path(root), run)
    params = runs.params_of(ws)
    progress = create_progress_artifact(
        progress=0.0, key=f"training-{params.dataset}", description=f"Candidates of {run} trained"
    )
    failed: list[str] = []
    with _stopping(workers):
        for stage in stages(params, ws):
            for dropped in stage.dropped:
                say(f"train    {dropped.title}: {dropped.reason}")
            futures = {
                train_candidate.submit(root, run, key, workers, warm_start.get(key), stage.rung): key for key in stage.keys
            }
            for done, future in enumerate(as_completed(list(futures)), start=1):
                future.wait()
                interruption.look()  # before what was stopped is taken for a failure
                if not future.state.is_completed():
                    failed.append(futures[future])
                    note_failure(params, ws, futures[future], _why(future.state))
                    say(f"train    {futures[future]} failed: {_why(future.state)}")
                share = (stage.number + done / len(futures)) / most_stages(params)
                update_progress_artifact(progress, progress=100.0 * share)
    if len(failed) == len(params.train.models):
        raise TrainingError(f"every candidate failed ({', '.join(failed)}); see their reasons above")
    return len(params.train.models) - len(failed)


@contextmanager
def _stopping(workers: Workers | None) -> Iterator[None]:
    """What ends this flow (Ctrl-C, Cancel) ends its trainings, which run in other threads and processes."""
    stopping.forget()
    try:
        yield
    except Exception:
        raise
    except BaseException:
        stopping.ask()
        if workers is not None:
            workers.stop()
        raise


def _why(state: object) -> str:
    message = str(getattr(state, "message", "") or "")
    # "… an exception ParamsError: dlinear: lag 2 is …": the kind of error says nothing to a person
    return re.sub(r"^Task run encountered an exception:? (\w+Error: )?", "", message).strip() or str(state)
