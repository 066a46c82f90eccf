"""Vertical and transfer federations: the data of all data sets they need, then the training, in a process of its own."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from cellwright import runs
from cellwright.catalogue import load_catalogue
from cellwright.federation.alignment.asked import check_asked, datasets
from cellwright.params import Params, load
from cellwright.steps.federate_kinds import source_params
from flows._catalogue import DEFAULT, ROOT, DataSet
from flows._frame import finish, is_finished, working
from flows._hooks import notify
from tasks.federate_kinds import train_kind
from tasks.prepare_data import prepare_data

Fresh = Annotated[bool, Field(description="Start another run even if this one is finished")]
Overrides = Annotated[list[str], Field(description="section.key=value of params.yaml")]


@flow(
    name="federate vertical",
    flow_run_name="federate vertical {dataset}",
    description="Train parties with different features of the same time; compare with the active party alone.",
    on_failure=[notify],
    on_crashed=[notify],
    validate_parameters=True,
)
def vertical(
    dataset: Annotated[DataSet, Field(description="Data set of the catalogue")] = DEFAULT,
    fresh: Fresh = False,
    overrides: Overrides = [],  # noqa: B006 - only read
) -> str:
    """Run a vertical federation; returns the run's name. The same parameters resume a run that was interrupted.

    Raises:
        CellwrightError: what stopped it, with what to do.
    """
    return _run("vertical", dataset, fresh, overrides)


@flow(
    name="federate transfer",
    flow_run_name="federate transfer {dataset}",
    description="Train a body with one data set's owners, then another's with it; compare with fresh weights.",
    on_failure=[notify],
    on_crashed=[notify],
    validate_parameters=True,
)
def transfer(
    dataset: Annotated[DataSet, Field(description="Data set to train on, the target")] = DEFAULT,
    fresh: Fresh = False,
    overrides: Overrides = [],  # noqa: B006 - only read
) -> str:
    """Run a transfer federation; returns the run's name. The same parameters resume a run that was interrupted.

    Raises:
        CellwrightError: what stopped it, with what to do.
    """
    return _run("transfer", dataset, fresh, overrides)


def _run(kind: str, dataset: DataSet, fresh: bool, overrides: list[str]) -> str:
    params = load(ROOT / "params.yaml", [*overrides, f"dataset={dataset.value}"])
    check_asked(params, kind, load_catalogue(ROOT / "data" / "catalogue.yaml"))
    own, *others = datasets(params, kind)
    version = prepare_data(str(ROOT), own)
    beside = [(_seen(params, kind, name), prepare_data(str(ROOT), name)) for name in others]
    mark = f"{kind}-{str(flow_run.id)[-8:]}" if fresh else kind
    ws = runs.open_run(params, ROOT, version, again=mark, beside=beside)
    if not is_finished(ws):
        with working(ws):
            train_kind(str(ROOT), ws.run, kind)
            finish(ws)
    return ws.run


def _seen(params: Params, kind: str, dataset: str) -> Params:
    """The parameters that another data set is seen with."""
    return source_params(params, dataset) if kind == "transfer" else params
