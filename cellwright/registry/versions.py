"""Model versions: what is logged as a model, its number, its semantic version and its aliases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cellwright.errors import CellwrightError
from cellwright.registry.card import model_card
from cellwright.registry.logged_model import ensure_model
from cellwright.registry.names import Bump, model_name, next_semantic
from cellwright.registry.runs import FINGERPRINT, Logged
from cellwright.report.record import Candidate, Record
from cellwright.report.words import number
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
HISTORY = "champion.history"  # registered model's tag: versions that were champion, oldest first, the present one last
_REMEMBERED = 100


@dataclass(frozen=True)
class Version:
    """A version as it was registered."""

    model_name: str
    number: str
    semantic: str


def ensure_version(client: MlflowClient, ws: Workspace, record: Record, logged: Logged, bump: Bump, area: str | None) -> Version:
    """The version of this run's choice: the one that is there, or a new one."""
    board = record.board
    name = model_name(board.data.dataset, board.targets, board.history, board.horizon, area)
    _ensure_registered_model(client, name, record, area)
    there = client.search_model_versions(f"name='{name}'", max_results=10_000)
    for version in there:
        if version.tags.get(FINGERPRINT) == logged.fingerprint:
            return Version(name, str(version.version), version.tags["semantic"])
    semantic = next_semantic((v.tags["semantic"] for v in there if "semantic" in v.tags), bump)
    return Version(name, _create(client, ws, record, logged, name, semantic), semantic)


def crown(client: MlflowClient, name: str, version: str) -> str | None:
    """Move the alias `champion` to a version; the one that had it before is remembered and returned."""
    before = _history(client, name)
    previous = before[-1] if before else None
    if previous != version:
        client.set_registered_model_tag(name, HISTORY, " ".join([*before, version][-_REMEMBERED:]))
    client.set_registered_model_alias(name, CHAMPION, version)
    client.set_model_version_tag(name, version, "champion.since", datetime.now(UTC).isoformat(timespec="seconds"))
    if client.get_registered_model(name).aliases.get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return previous if previous != version else None


def step_back(client: MlflowClient, name: str) -> str | None:
    """Give the alias back to the champion before the present one; its number, or None where there was none."""
    before = _history(client, name)
    if len(before) < 2:
        return None
    client.set_registered_model_alias(name, CHAMPION, before[-2])
    client.set_registered_model_tag(name, HISTORY, " ".join(before[:-1]))
    client.set_model_version_tag(name, before[-2], "champion.since", datetime.now(UTC).isoformat(timespec="seconds"))
    return before[-2]


def uncrown(client: MlflowClient, name: str, version: str, before: str | None) -> None:
    """As if `version` had never been champion: the alias goes back to `before`, or away; the version is a challenger again."""
    history = [v for v in _history(client, name) if v != version]
    if before is not None:
        client.set_registered_model_alias(name, CHAMPION, before)
        history = history if history[-1:] == [before] else [*history, before]
    else:
        client.delete_registered_model_alias(name, CHAMPION)
    client.set_registered_model_tag(name, HISTORY, " ".join(history))
    client.set_registered_model_alias(name, CHALLENGER, version)


def champion_of(client: MlflowClient, name: str) -> str | None:
    """Number of the version that bears the alias `champion`."""
    alias = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if alias is None else str(alias)


def _history(client: MlflowClient, name: str) -> list[str]:
    """Versions that were champion. The alias is the truth: it may have been moved in MLflow's own UI; deleted ones are left out."""
    there = {str(v.version) for v in client.search_model_versions(f"name='{name}'", max_results=10_000)}
    told = [v for v in client.get_registered_model(name).tags.get(HISTORY, "").split() if v in there]
    present = champion_of(client, name)
    return told if present is None or told[-1:] == [present] else [*told, present]


def _ensure_registered_model(client: MlflowClient, name: str, record: Record, area: str | None) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        board = record.board
        text = (
            f"Forecasts {', '.join(board.targets)} ({board.unit}) of {area or 'the whole network'} of data set {board.data.dataset}, "
            f"{board.horizon} steps ahead from {board.history}. The alias `champion` serves; `challenger` is being tried."
        )
        tags = {"dataset": board.data.dataset, "targets": " ".join(board.targets), "area": area or "all"}
        client.create_registered_model(name, tags=tags, description=text)


def _create(client: MlflowClient, ws: Workspace, record: Record, logged: Logged, name: str, semantic: str) -> str:
    """Log the model below its candidate's run and make a version of it."""
    card = _card(record, record.champion)
    model_id = ensure_model(client, ws, record, logged, card)
    version: ModelVersion = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=logged.candidates[record.champion.key],
        tags=_tags(record, logged, semantic),
        description=card,
        model_id=model_id,
    )
    return str(version.version)


def _card(record: Record, candidate: Candidate) -> str:
    if candidate.trained is None or candidate.scored is None:
        raise CellwrightError(
            f"candidate {candidate.key} of run {record.board.run} lacks its record or its score; run score again"
        )
    return model_card(candidate.trained, candidate.scored, record.board, record.schema)


def _tags(record: Record, logged: Logged, semantic: str) -> dict[str, str]:
    board, choice = record.board, record.champion
    tags = {"semantic": semantic, "model": choice.title, "candidate": choice.key, "unit": board.unit}
    if choice.row is not None and choice.row.kpis.get("mae") is not None:
        tags["test mae"] = f"{number(choice.row.kpis['mae'], 4)} {board.unit}"
    if choice.trained is not None and choice.trained.energy is not None and choice.trained.energy.energy_j is not None:
        tags["train energy"] = f"{number(choice.trained.energy.energy_j)} J ({choice.trained.energy.source})"
    return {**tags, **logged.own_tags, "benchmark": logged.run_id, FINGERPRINT: logged.fingerprint}
