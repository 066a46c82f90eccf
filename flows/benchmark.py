"""The main job: from raw telemetry to a served champion."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from cellwright import runs
from cellwright.energy.meter import idle_baseline
from cellwright.params import Params, load
from cellwright.training.checks import check_models
from cellwright.training.workers import Workers
from flows._catalogue import DEFAULT, ROOT, DataSet, Model, Other
from flows._chain import compute
from flows._hooks import notify
from flows._runners import pool
from tasks._run import say
from tasks.find_start import find_start
from tasks.prepare_data import prepare_data


@flow(
    name="benchmark",
    flow_run_name="benchmark {dataset}",
    description="Benchmark the models on a data set, register the best one, publish it to the edge.",
    on_failure=[notify],
    on_crashed=[notify],
    validate_parameters=True,
)
def benchmark(
    dataset: Annotated[DataSet, Field(description="Data set of the catalogue")] = DEFAULT,
    models: Annotated[list[Model | Other], Field(description="Candidates; none: those of params.yaml")] = [],  # noqa: B006 - only read
    budget_s: Annotated[float, Field(ge=0, description="Training seconds a candidate; 0: as in params.yaml")] = 0,
    promote: Annotated[bool, Field(description="Let the winner become the champion if it beats the present one")] = True,
    only_new: Annotated[bool, Field(description="Look for new upstream files first, and stop if there are none")] = False,
    fresh: Annotated[bool, Field(description="Start another run even if this one is finished")] = False,
    overrides: Annotated[list[str], Field(description="section.key=value of params.yaml")] = [],  # noqa: B006 - only read
) -> str:
    """Run the whole chain; returns the run's name. The same parameters resume a run that was interrupted.

    Raises:
        CellwrightError: what stopped it, with what to do.
    """
    params = _params(dataset, models, budget_s, overrides)
    check_models(params)  # before the data are made
    idle_baseline(params.energy)  # before anything is busy
    ready = fresh or not runs.done_before(params, ROOT)
    with pool(params.runner, ready=ready) as workers:  # they import torch while the data are made
        return _benchmark(params, workers, promote=promote, only_new=only_new, fresh=fresh)


def _benchmark(params: Params, workers: Workers | None, *, promote: bool, only_new: bool, fresh: bool) -> str:
    # what was ingested but never came to its end is still to be done
    version = prepare_data(str(ROOT), params.dataset, only_new=only_new and runs.done_before(params, ROOT))
    # a Retry of the same flow run finds the run that it began
    ws = runs.open_run(params, ROOT, version, again=str(flow_run.id)[-8:] if fresh else None)
    if runs.finished(ws):
        say(f"run      {ws.run} is finished; --fresh starts another")
        return ws.run
    start = find_start(str(ROOT), ws.run) if params.train.warm_start != "none" else {}
    compute(params, ws, workers, promote=promote, warm_start=start)
    return ws.run


def _params(dataset: DataSet, models: list[Model | Other], budget_s: float, overrides: list[str]) -> Params:
    given = [*overrides, f"dataset={dataset.value}"]
    given += [f"train.models=[{', '.join(map(str, models))}]"] if models else []
    given += [f"train.budget_s={budget_s}"] if budget_s else []
    return load(ROOT / "params.yaml", given)
