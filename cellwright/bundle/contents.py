"""The documents beside the model: data licence, lineage, KPIs. Results in, bytes out; the same results give the same bytes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellwright.bundle.manifest import canonical
from cellwright.training.own_model import public

if TYPE_CHECKING:
    from cellwright.panel import PanelSchema
    from cellwright.params import Params
    from cellwright.results import DataVersion, Leaderboard, Registered, Scored, Trained

_STATED = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
_OF_TRAINING = {"preset", "options", "settings", "seed", "trials", "warm_start", "status"}


@dataclass(frozen=True)
class Measured:
    """What was measured of the exported models themselves, on the validation span."""

    parity: float  # largest relative difference to torch
    windows: int
    mae_fp32: float
    mae_int8: float | None  # None: no INT8 model could be made
    int8_offered: bool
    int8_reason: str

    @property
    def int8_loss(self) -> float | None:
        """Relative loss of MAE; below 0 where INT8 is better."""
        return (
            None
            if self.mae_int8 is None
            else self.mae_int8 / self.mae_fp32 - 1
            if self.mae_fp32 > 0
            else float(self.mae_int8 > 0)
        )


def document(content: Any) -> bytes:
    """JSON for people: indented, sorted."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def licence(schema: PanelSchema) -> bytes:
    """Licence and attribution of the data that the model was trained on."""
    return f"# Data\n\nTrained on: {schema.dataset}\n\nLicence: {schema.licence}\n\n{schema.attribution}\n".encode()


def lineage(params: Params, trained: Trained, registered: Registered | None, run: str, commit: str | None) -> bytes:
    """Where the model comes from: data version, code, run, parameters, libraries."""
    content = {
        "data": trained.data.model_dump(),
        "run": run,
        "commit": commit,
        "mlflow": None
        if registered is None
        else registered.model_dump(include={"experiment", "run_id", "model_name", "version"}),
        "params_sha256": hashlib.sha256(canonical(params.model_dump(mode="json", by_alias=True))).hexdigest(),
        "candidate": trained.model_dump(mode="json", include=_OF_TRAINING)
        | {"key": public(trained.key), "model": public(trained.model)},
        "libraries": {name: importlib.metadata.version(name) for name in _STATED},
    }
    return document(content)


def kpis(scored: Scored, board: Leaderboard, measured: Measured) -> bytes:
    """The KPIs of the run, and those of the exported models."""
    exported = {
        "span": "validation",
        "windows": measured.windows,
        "parity_to_torch": measured.parity,
        "mae_fp32": measured.mae_fp32,
        "mae_int8": measured.mae_int8,
        "int8_loss": measured.int8_loss,
        "int8_offered": measured.int8_offered,
        "int8_reason": measured.int8_reason,
    }
    content = {
        "data": _data(board.data),
        "unit": board.unit,
        "kpi_units": board.kpi_units,
        "validation": scored.validation,
        "test": scored.test,
        "cost": scored.cost,
        "sources": scored.sources,
        "exported": exported,
    }
    return document(content)


def _data(version: DataVersion) -> dict[str, Any]:
    return version.model_dump()
