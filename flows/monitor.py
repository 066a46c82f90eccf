"""Watch the champion: score it on what arrived since, tell of drift, ask for retraining."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from cellwright.errors import NothingNew
from cellwright.params import load
from flows._catalogue import ROOT, DataSet
from flows._hooks import notify
from tasks._run import say
from tasks.observe import observe_champion
from tasks.prepare_data import prepare_data


@flow(
    name="monitor",
    flow_run_name="monitor {dataset}",
    description="Score the champion on the telemetry that arrived since, look for drift at every site, ask for retraining.",
    on_failure=[notify],
    on_crashed=[notify],
)
def monitor(
    dataset: Annotated[DataSet | None, Field(description="Data set of the catalogue; empty: that of params.yaml")] = None,
    batch_h: Annotated[float | None, Field(gt=0, description="Hours of telemetry to release; empty: as in params.yaml")] = None,
    overrides: Annotated[list[str] | None, Field(description="section.key=value of params.yaml")] = None,
) -> str:
    """One look at the champion. Returns what was found in one sentence; that nothing has arrived is no failure."""
    given = [*(overrides or ()), *([f"dataset={dataset.value}"] if dataset else [])]
    name = load(ROOT / "params.yaml", given).dataset
    prepare_data(str(ROOT), name)
    try:
        return observe_champion(str(ROOT), name, list(overrides or ()), batch_h).reason
    except NothingNew as nothing:
        say(f"observe  {nothing}")
        return str(nothing)
