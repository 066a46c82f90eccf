"""A forecaster as ONNX: raw telemetry goes in, raw units come out, no Python needed on the other side.

history  (batch, history, nodes, features)      float32, raw units, NaN = missing
known    (batch, history + horizon, known)      float32, calendar features
site     (batch,)                               int64, index of the (centre) site; ignored where inputs = "all"
forecast (batch, horizon, outputs, targets, quantiles)   float32, raw units
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.errors import BundleError
from cellwright.files import write_bytes

if TYPE_CHECKING:
    from torch import nn

INPUTS = ("history", "known", "site")
OUTPUT = "forecast"
PARITY_LIMIT = 1e-4  # largest relative difference between ONNX Runtime and torch that is published

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]  # history, known, site, shaped as above


def export_onnx(forecaster: nn.Module, path: Path) -> Path:
    """Write `forecaster` (with its scaler) to `path` as fp32 ONNX with a dynamic batch; equal weights give equal bytes.

    `forecaster.problem` gives the shapes. The module is put in evaluation mode and back again.

    Raises:
        BundleError: an operation of the network has no ONNX form.
    """
    import onnx

    model = _exported(forecaster)
    _forget_the_machine(model)
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString(deterministic=True))
    return path


def parity(forecaster: nn.Module, path: Path, samples: Sequence[Sample]) -> float:
    """Largest relative difference between the ONNX file and torch over `samples`.

    Relative to the magnitude of torch's value, but to no less than 1 % of the mean magnitude of all of them, so that a forecast
    that happens to be 0 does not divide by it.

    Raises:
        BundleError: it is above 1e-4, or one of the two gives NaN where the other does not.
    """
    session = open_session(path)
    pairs = [(_torch_forecast(forecaster, s), run_session(session, *s)) for s in samples]
    floor = 0.01 * float(np.mean([np.nanmean(np.abs(want)) for want, _ in pairs]))
    worst = max(_difference(want, found, floor) for want, found in pairs)
    if not worst <= PARITY_LIMIT:
        raise BundleError(
            f"the exported model differs from torch by {worst:.2e} (relative), at most {PARITY_LIMIT:.0e} is published; "
            "find the operation that ONNX Runtime computes differently, or publish another candidate"
        )
    return worst


def open_session(model: Path | bytes, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU, quiet, with `threads` threads an operation.

    Raises:
        BundleError: the bytes are not a model that ONNX Runtime can run.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises classes of its own, one a status code, without a common public base
        raise BundleError(f"ONNX Runtime cannot load {'the model' if isinstance(model, bytes) else model}: {error}") from error


def run_session(session: Any, history: np.ndarray, known: np.ndarray, site: np.ndarray) -> np.ndarray:
    """One batch through an open session; shapes as above."""
    feeds = {
        "history": np.asarray(history, dtype=np.float32),
        "known": np.asarray(known, dtype=np.float32),
        "site": np.asarray(site, dtype=np.int64),
    }
    forecast: np.ndarray = session.run([OUTPUT], feeds)[0]
    return forecast


def example(problem: Any, batch: int = 2) -> tuple[Any, Any, Any]:
    """Zero tensors of the problem's shapes, to trace with."""
    import torch

    history = torch.zeros(batch, problem.history, problem.nodes, len(problem.features))
    known = torch.zeros(batch, problem.history + problem.horizon, len(problem.known))
    return history, known, torch.zeros(batch, dtype=torch.int64)


def _exported(forecaster: Any) -> Any:
    import torch
    from torch.onnx import OnnxExporterError

    was_training = forecaster.training
    device = next((p.device for p in forecaster.parameters()), torch.device("cpu"))
    inputs = tuple(t.to(device) for t in example(forecaster.problem))
    batch = torch.export.Dim("batch", min=1)
    forecaster.eval()
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                forecaster,
                inputs,
                dynamo=True,
                verbose=False,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch}, {0: batch}, {0: batch}),
            )
    except OnnxExporterError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BundleError(f"{type(forecaster).__name__} cannot be exported to ONNX: {first}") from error
    finally:
        forecaster.train(was_training)
    if program is None:
        raise BundleError(f"{type(forecaster).__name__} cannot be exported to ONNX: the exporter returned nothing")
    _check_any_batch(program.model_proto)
    return program.model_proto


def _check_any_batch(model: Any) -> None:
    """The exporter has ways round what it cannot trace, which take the example's two windows for the only number there is."""
    fixed = [i.name for i in model.graph.input if not i.type.tensor_type.shape.dim[0].dim_param]
    if fixed:
        raise BundleError(
            f"it cannot be exported to ONNX for any number of windows: its code takes the batch of {' and '.join(fixed)} for a "
            "constant; read it as x.shape[0], not by len(x) or in a Python condition"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress, warns of its own deprecations and logs every rewritten node: nothing a user can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _forget_the_machine(model: Any) -> None:
    """Drop stack traces, source paths and inferred shapes: they name folders of this machine and change from run to run."""
    _bare(model)
    _bare_graph(model.graph)
    for function in model.functions:
        _bare(function)
        for node in function.node:
            _bare_node(node)


def _bare_graph(graph: Any) -> None:
    _bare(graph)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        _bare(value)
    for node in graph.node:
        _bare_node(node)


def _bare_node(node: Any) -> None:
    _bare(node)
    for attribute in node.attribute:
        attribute.doc_string = ""
        if attribute.HasField("g"):
            _bare_graph(attribute.g)


def _bare(message: Any) -> None:
    message.doc_string = ""
    del message.metadata_props[:]


def _torch_forecast(forecaster: Any, sample: Sample) -> np.ndarray:
    import torch

    history, known, site = (np.ascontiguousarray(a) for a in sample)
    was_training = forecaster.training
    forecaster.eval()
    try:
        with torch.inference_mode():
            out = forecaster(torch.from_numpy(history), torch.from_numpy(known), torch.from_numpy(site))
    finally:
        forecaster.train(was_training)
    forecast: np.ndarray = out.cpu().numpy()
    return forecast


def _difference(want: np.ndarray, found: np.ndarray, floor: float) -> float:
    if want.shape != found.shape or not np.array_equal(np.isnan(want), np.isnan(found)):
        return float("inf")
    apart = np.abs(found.astype(np.float64) - want) / np.maximum(np.abs(want.astype(np.float64)), max(floor, 1e-12))
    return float(np.nanmax(apart, initial=0.0))
