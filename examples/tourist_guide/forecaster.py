"""The operator's own model: the load of its cells in the next half hour, from the last hour; fitted by least squares, signed, packed."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import media
from cellwright.bundle.contents import document
from cellwright.bundle.layout import About, pack
from cellwright.bundle.problem import ServedProblem

NAME, VERSION = "cell-load", "1.0.0"
_HISTORY, _HORIZON, _ROWS = 6, 3, 1_000
_SITES = ("cell-commercial", "cell-resort")
_PROBLEM = ServedProblem(
    dataset="generated-load", history=_HISTORY, horizon=_HORIZON, cadence_s=600, inputs="site", features=("load",), targets=("load",),
    known=(), lags=(), quantiles=(), units={"load": "Mbit/s"}, sites=_SITES, neighbours=None, clock="utc", timezone="UTC", scaler={},
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A packed model, a question, and what the model answers to it."""

    archive: Path
    request: dict[str, Any]
    expected: np.ndarray  # (horizon,) Mbit/s


def make(folder: Path, key: Ed25519PrivateKey, seed: int) -> Made:
    """Fit on generated load, pack and sign with the operator's key."""
    load = _load(seed)
    weights = _fitted(load[:-_HISTORY])
    contents: dict[str, bytes | Path] = {
        media.MODEL: _onnx(weights),
        media.PROBLEM: document(_PROBLEM.model_dump(mode="json")),
        media.CARD: b"# Cell load\n\nAn autoregression of order 6 on generated load.\n",
        media.LICENCE: b"# Data\n\nGenerated; CC0 1.0.\n",
        media.LINEAGE: document({"data": "generated", "seed": seed}),
        media.KPIS: document({"windows": len(load) - _HISTORY - _HORIZON}),
    }
    about = About(NAME, VERSION, "Autoregression", "ar", "load of cells", weights.size, None, None)
    pack(folder / "layout", contents, about, key)
    archive = folder / "cell-load.tar"
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as out:
        out.add(folder / "layout", arcname=".")
    recent = load[-_HISTORY:]
    history = {_SITES[0]: {"load": [round(float(v), 3) for v in recent]}}
    request = {"bundle": NAME, "time": "2026-01-01T12:00:00Z", "site": _SITES[0], "history": history}
    return Made(archive, request, np.append(recent, 1.0) @ weights)


def _load(seed: int) -> np.ndarray:
    """(rows,) Mbit/s: a day's wave and noise."""
    rng, row = np.random.default_rng(seed), np.arange(_ROWS)
    return (100 + 40 * np.sin(row / 144 * 2 * np.pi) + rng.normal(0, 4, _ROWS)).astype(np.float32)


def _fitted(load: np.ndarray) -> np.ndarray:
    """(history + 1, horizon): weights of the last steps, and a constant."""
    rows = np.lib.stride_tricks.sliding_window_view(load, _HISTORY + _HORIZON)
    inputs = np.column_stack([rows[:, :_HISTORY], np.ones(len(rows))])
    return np.linalg.lstsq(inputs, rows[:, _HISTORY:], rcond=None)[0].astype(np.float32)


def _onnx(weights: np.ndarray) -> bytes:
    """history (batch, 6, 1, 1) to forecast (batch, 3, 1, 1, 1)."""
    from onnx import TensorProto, checker, helper, numpy_helper

    tables = {
        "flat": np.array([-1, _HISTORY], np.int64),
        "weights": weights[:_HISTORY],
        "constant": weights[_HISTORY],
        "full": np.array([-1, _HORIZON, 1, 1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["history", "flat"], ["recent"]),
        helper.make_node("MatMul", ["recent", "weights"], ["product"]),
        helper.make_node("Add", ["product", "constant"], ["sum"]),
        helper.make_node("Reshape", ["sum", "full"], ["forecast"]),
    ]
    real, whole = TensorProto.FLOAT, TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("history", real, ["batch", _HISTORY, 1, 1]),
        helper.make_tensor_value_info("known", real, ["batch", _HISTORY + _HORIZON, 0]),
        helper.make_tensor_value_info("site", whole, ["batch"]),
    ]
    outputs = [helper.make_tensor_value_info("forecast", real, ["batch", _HORIZON, 1, 1, 1])]
    initial = [numpy_helper.from_array(array, name) for name, array in tables.items()]
    graph = helper.make_graph(nodes, NAME, inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    return bytes(model.SerializeToString())
