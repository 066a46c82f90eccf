"""Model versions: what is logged as a model, its number, its semantic version and its aliases."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.files import write_text
from cellwright.registry.card import model_card
from cellwright.registry.describe import candidate_params
from cellwright.registry.names import Bump, model_name, next_semantic
from cellwright.registry.runs import FINGERPRINT, FORECASTER_FILES, Logged, write_points
from cellwright.registry.trace import kpi_points
from cellwright.report.record import Candidate, Record
from cellwright.report.words import number

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
HISTORY = "champion.history"  # registered model's tag: versions that were champion, oldest first, the present one last
_REMEMBERED = 100
_REQUIREMENTS = ("onnxruntime", "numpy")


@dataclass(frozen=True)
class Version:
    """A version as it was registered."""

    model_name: str
    number: str
    semantic: str


def ensure_version(client: MlflowClient, record: Record, logged: Logged, bump: Bump, area: str | None) -> Version:
    """The version of this run's choice: the one that is there, or a new one."""
    board = record.board
    name = model_name(board.data.dataset, board.targets, board.history, board.horizon, area)
    _ensure_model(client, name, record, area)
    there = client.search_model_versions(f"name='{name}'", max_results=10_000)
    for version in there:
        if version.tags.get(FINGERPRINT) == logged.fingerprint:
            return Version(name, str(version.version), version.tags["semantic"])
    semantic = next_semantic((v.tags["semantic"] for v in there if "semantic" in v.tags), bump)
    return Version(name, _create(client, record, logged, name, semantic), semantic)


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


def _ensure_model(client: MlflowClient, name: str, record: Record, area: str | None) -> None:
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


def _create(client: MlflowClient, record: Record, logged: Logged, name: str, semantic: str) -> str:
    """Log the model below its candidate's run and make a version of it."""
    choice = record.champion
    run_id = logged.candidates[choice.key]
    card = _card(record, choice)
    model = _log_model(client, record, logged, run_id, card)
    version: ModelVersion = client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        tags=_tags(record, logged, semantic),
        description=card,
        model_id=model.model_id,
    )
    return str(version.version)


def _card(record: Record, candidate: Candidate) -> str:
    assert candidate.trained is not None and candidate.scored is not None
    return model_card(candidate.trained, candidate.scored, record.board, record.schema)


def _log_model(client: MlflowClient, record: Record, logged: Logged, run_id: str, card: str) -> Any:
    """MLflow's logged model: ONNX with its signature, the forecaster folder and the card beside it. No pickle, no inference of
    requirements."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    choice = record.champion
    model = client.create_logged_model(
        logged.experiment_id,
        name=choice.title,
        source_run_id=run_id,
        tags={**{k: v for k, v in logged.tags.items() if not k.startswith("mlflow.")}, "candidate": choice.key},
        params=candidate_params(choice),
        model_type="forecaster",
    )
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "model"
        _save(choice, folder, model.model_id, run_id, card)
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    points = kpi_points(choice, model.creation_timestamp)
    write_points(client, run_id, (p for p in points if p.name.startswith(("test/", "validation/", "cost/"))), model.model_id)
    return model


def _save(candidate: Candidate, folder: Path, model_id: str, run_id: str, card: str) -> None:
    import mlflow.onnx
    import onnx
    from mlflow.models import Model

    from cellwright.bundle.export import export_onnx
    from cellwright.forecaster import Forecaster

    with tempfile.TemporaryDirectory() as aside, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecaster = Forecaster.load(candidate.folder)
        exported = export_onnx(forecaster, Path(aside) / "model.onnx")
        mlflow.onnx.save_model(
            onnx.load(exported),
            folder,
            signature=_signature(forecaster.problem),
            pip_requirements=list(_REQUIREMENTS),
            mlflow_model=Model(model_id=model_id, model_uuid=model_id, run_id=run_id),
            save_as_external_data=False,
        )
    (folder / "forecaster").mkdir()
    for name in FORECASTER_FILES:
        if (candidate.folder / name).is_file():
            (folder / "forecaster" / name).write_bytes((candidate.folder / name).read_bytes())
    write_text(folder / "model-card.md", card)


def _signature(problem: Any) -> Any:
    """Shapes of the exported model: raw telemetry in, raw units out; -1 is the batch."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    single, whole = np.dtype(np.float32), np.dtype(np.int64)
    inputs = [
        TensorSpec(single, (-1, problem.history, problem.nodes, len(problem.features)), "history"),
        TensorSpec(single, (-1, problem.history + problem.horizon, len(problem.known)), "known"),
        TensorSpec(whole, (-1,), "site"),
    ]
    shape = (-1, problem.horizon, problem.outputs, len(problem.targets), problem.out_quantiles)
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([TensorSpec(single, shape, "forecast")]))


def _tags(record: Record, logged: Logged, semantic: str) -> dict[str, str]:
    board, choice = record.board, record.champion
    mine = {k: v for k, v in logged.tags.items() if not k.startswith("mlflow.")}
    tags = {
        **mine,
        FINGERPRINT: logged.fingerprint,
        "semantic": semantic,
        "candidate": choice.key,
        "model": choice.title,
        "unit": board.unit,
        "benchmark": logged.run_id,
    }
    if choice.row is not None and choice.row.kpis.get("mae") is not None:
        tags["test mae"] = f"{number(choice.row.kpis['mae'], 4)} {board.unit}"
    if choice.trained is not None and choice.trained.energy is not None and choice.trained.energy.energy_j is not None:
        tags["train energy"] = f"{number(choice.trained.energy.energy_j)} J ({choice.trained.energy.source})"
    return tags
