"""Register a run: everything MLflow is told about it, and whether its choice becomes the champion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellwright.errors import TrainingError
from cellwright.params import Params
from cellwright.registry.champions import fetch
from cellwright.registry.contest import CannotCompare, Verdict, verdict
from cellwright.registry.match import match
from cellwright.registry.runs import Logged, log_benchmark
from cellwright.registry.store import writing
from cellwright.registry.versions import CHALLENGER, Version, champion_of, crown, ensure_version
from cellwright.report import record as records
from cellwright.report.record import Record
from cellwright.results import Registered
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


def register_run(params: Params, ws: Workspace, *, promote: bool, area: str | None = None) -> Registered:
    """Write the run to MLflow, make a version of its choice, and move `champion` if that is allowed and earned.

    Registering the same run again continues or repeats nothing.

    Raises:
        RegistryError: the store cannot be used.
        CellwrightError: the run is not finished.
    """
    record = records.read(ws)
    with writing(ws) as client:
        logged = log_benchmark(client, params, ws, record)
        version = ensure_version(client, ws, record, logged, params.register_.bump, area)
        found = _judge(client, params, ws, record, version, promote)
        awaits = (
            found.wins
            and params.rollout.mode != "direct"
            and champion_of(client, version.model_name) not in (None, version.number)
        )
        if awaits:
            found = Verdict(False, f"{found.reason}; its rollout decides")
        _announce(client, logged, version, found)
    return Registered(
        experiment=logged.experiment,
        run_id=logged.run_id,
        model_name=version.model_name,
        version=version.number,
        semantic=version.semantic,
        champion=found.wins,
        awaits_rollout=awaits,
        reason=found.reason,
    )


def _judge(client: MlflowClient, params: Params, ws: Workspace, record: Record, version: Version, promote: bool) -> Verdict:
    """Whether the version is the champion from now on; moves no alias."""
    present = champion_of(client, version.model_name)
    if present == version.number:
        return Verdict(True, "it is the champion already")
    if not promote:
        return Verdict(False, "promotion was not asked for")
    if present is None:
        return Verdict(True, "there was no champion yet")
    folder = fetch(client, ws, version.model_name, present)
    try:
        contest = match(params, ws, record, present, folder)
    except (CannotCompare, TrainingError) as error:
        return Verdict(False, str(error))
    return verdict(contest, params.rank.similar_accuracy, record.board.unit)


def _announce(client: MlflowClient, logged: Logged, version: Version, found: Verdict) -> None:
    if found.wins:
        crown(client, version.model_name, version.number)
    else:
        client.set_registered_model_alias(version.model_name, CHALLENGER, version.number)
    client.set_model_version_tag(version.model_name, version.number, "verdict", found.reason)
    client.set_tag(logged.run_id, "registered", f"{version.model_name} {version.semantic} (version {version.number})")
    client.set_tag(logged.run_id, "champion", "yes" if found.wins else f"no: {found.reason}")
