"""Watch the champion: score it on what arrived since, tell of drift, ask for retraining."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows._catalogue import DEFAULT, ROOT, DataSet
from flows._hooks import notify
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
    dataset: Annotated[DataSet, Field(description="Data set of the catalogue")] = DEFAULT,
    batch_h: Annotated[float, Field(ge=0, description="Hours of telemetry to release; 0: as in params.yaml")] = 0,
    overrides: Annotated[list[str], Field(description="section.key=value of params.yaml")] = [],  # noqa: B006 - only read
) -> str:
    """One look at the champion. Returns what was found in one sentence; that nothing has arrived is no failure."""
    prepare_data(str(ROOT), dataset.value)
    found = observe_champion(str(ROOT), dataset.value, overrides, batch_h or None)
    return found.reason if found else "nothing new"
