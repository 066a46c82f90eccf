"""Federated learning: request, selection, topology, rounds, evaluation, registration, publication."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from cellwright import runs
from cellwright.energy.meter import idle_baseline
from cellwright.params import Params, load
from cellwright.steps.federate import key_of, one_model
from cellwright.training.checks import check_models
from cellwright.workspace import Workspace
from flows._catalogue import DEFAULT, ROOT, DataSet
from flows._chain import compute
from flows._frame import finish, is_finished, working
from flows._hooks import notify
from flows._runners import pool
from tasks._run import say
from tasks.choose_algorithm import choose_algorithm
from tasks.plan_federation import plan_federation
from tasks.prepare_data import prepare_data
from tasks.train_federation import train_federation

_REFERENCES = ("persistence", "ridge")  # cost nothing, and say what the network is worth


@flow(
    name="federate",
    flow_run_name="federate {dataset}",
    description="Train where the data may not move, compare with training alone and centrally, register and publish what is best.",
    on_failure=[notify],
    on_crashed=[notify],
    validate_parameters=True,
)
def federate(
    dataset: Annotated[DataSet, Field(description="Data set of the catalogue")] = DEFAULT,
    rule: Annotated[str, Field(description="Aggregation rule; empty: as in params.yaml; auto: chosen by what is known")] = "",
    model: Annotated[str, Field(description="Network; empty: as in params.yaml; auto: chosen likewise")] = "",
    promote: Annotated[bool, Field(description="Let the winner become the champion if it beats the present one")] = True,
    fresh: Annotated[bool, Field(description="Start another run even if this one is finished")] = False,
    overrides: Annotated[list[str], Field(description="section.key=value of params.yaml")] = [],  # noqa: B006 - only read
) -> str:
    """Run a federation and the chain behind it; returns the run's name. The same parameters resume a run that was interrupted.

    Raises:
        CellwrightError: what stopped it, with what to do.
    """
    given = [*([f"federation.rule={rule}"] if rule else []), *([f"federation.model={model}"] if model else [])]
    asked = load(ROOT / "params.yaml", [*overrides, *given, f"dataset={dataset.value}"])
    idle_baseline(asked.energy)  # before anything is busy
    version = prepare_data(str(ROOT), asked.dataset)
    params = choose_algorithm(str(ROOT), asked)
    params = beside(params) if one_model(params) else params
    check_models(params)
    ws = runs.open_run(params, ROOT, version, again=str(flow_run.id)[-8:] if fresh else None)
    if is_finished(ws):
        return ws.run
    with working(ws):
        plan_federation(str(ROOT), ws.run)
        train_federation(str(ROOT), ws.run)
    _chain(params, ws, promote=promote)
    return ws.run


def beside(params: Params) -> Params:
    """The run's candidates: the federated one, the same network trained centrally on the same inputs, and references."""
    models = (*_REFERENCES, params.federation.model, key_of(params))
    own = params.train.settings.get(params.federation.model)
    site = own.model_copy(update={"inputs": "site"}) if own else {"inputs": "site"}
    train = params.train.model_dump(mode="json") | {"models": list(dict.fromkeys(models))}
    train["settings"] = {
        **train["settings"],
        params.federation.model: site if isinstance(site, dict) else site.model_dump(mode="json"),
    }
    return Params.model_validate(params.model_dump(mode="json", by_alias=True) | {"train": train})


def _chain(params: Params, ws: Workspace, *, promote: bool) -> None:
    """Score, rank, register, publish, report; owners that end with models of their own have nothing to be ranked together."""
    if not one_model(params):
        say("federate  the owners end with models of their own: they are reported owner by owner, nothing is registered")
        finish(ws)
        return
    with pool(params.runner) as workers:
        compute(params, ws, workers, promote=promote)
