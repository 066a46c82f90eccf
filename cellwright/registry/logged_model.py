"""The champion of a run as a model of MLflow: ONNX with its signature, the forecaster and the card beside it; no pickle."""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.files import write_text
from cellwright.registry.describe import candidate_params
from cellwright.registry.runs import FINGERPRINT, FORECASTER_FILES, Logged, write_points
from cellwright.registry.trace import kpi_points
from cellwright.report.record import Candidate, Record
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

    from models._contract import Problem

_REQUIREMENTS = ("onnxruntime", "numpy")  # stated: MLflow would spend 40 s finding them out
_SHOWN = ("test/", "validation/", "cost/")


def ensure_model(client: MlflowClient, ws: Workspace, record: Record, logged: Logged, card: str) -> str:
    """Id of the model of this run's choice: the one that an interrupted registration left, or a new one."""
    query = f"tags.`{FINGERPRINT}` = '{logged.fingerprint}' AND status = 'READY'"
    there = client.search_logged_models([logged.experiment_id], filter_string=query, max_results=1)
    model = there[0] if there else _log(client, ws, record, logged, card)
    return str(model.model_id)


def _log(client: MlflowClient, ws: Workspace, record: Record, logged: Logged, card: str) -> Any:
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    choice, run_id = record.champion, logged.candidates[record.champion.key]
    model = client.create_logged_model(
        logged.experiment_id,
        name=re.sub(r"[^\w() +-]", "_", choice.title),
        source_run_id=run_id,
        tags={**logged.own_tags, FINGERPRINT: logged.fingerprint, "candidate": choice.key},
        params=candidate_params(choice),
        model_type="forecaster",
    )
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / "model"
        _save(ws, choice, folder, model.model_id, run_id)
        write_text(folder / "model-card.md", card)
        client.log_model_artifacts(model.model_id, str(folder))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    points = kpi_points(choice, model.creation_timestamp)
    write_points(client, run_id, (p for p in points if p.name.startswith(_SHOWN)), model.model_id)
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _save(ws: Workspace, candidate: Candidate, folder: Path, model_id: str, run_id: str) -> None:
    import mlflow.onnx
    import onnx
    from mlflow.models import Model

    from cellwright.forecaster import Forecaster

    forecaster = Forecaster.load(candidate.folder)
    with tempfile.TemporaryDirectory() as aside, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.onnx.save_model(
            onnx.load(_exported(ws, candidate, forecaster, Path(aside))),
            folder,
            signature=_signature(forecaster.problem),
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in _REQUIREMENTS],
            mlflow_model=Model(model_id=model_id, model_uuid=model_id, run_id=run_id),
            save_as_external_data=False,
        )
    for name in FORECASTER_FILES:
        if (candidate.folder / name).is_file():
            (folder / "forecaster").mkdir(exist_ok=True)
            shutil.copyfile(candidate.folder / name, folder / "forecaster" / name)


def _exported(ws: Workspace, candidate: Candidate, forecaster: Any, aside: Path) -> Path:
    """The ONNX file that scoring made, if it is newer than the weights; else a new one."""
    from cellwright.bundle.export import export_onnx
    from cellwright.forecaster import FILE

    made = ws.onnx(candidate.key)
    if made.is_file() and made.stat().st_mtime_ns >= (candidate.folder / FILE).stat().st_mtime_ns:
        return made
    return export_onnx(forecaster, aside / "model.onnx")


def _signature(problem: Problem) -> ModelSignature:
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
