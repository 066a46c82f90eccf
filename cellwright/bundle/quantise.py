"""INT8 by dynamic quantisation (ONNX Runtime): weights are stored in 8 bits, activations are scaled as they come."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cellwright.errors import BundleError
from cellwright.files import write_bytes


@dataclass(frozen=True)
class Quantised:
    """An INT8 model, or why there is none."""

    path: Path | None
    reason: str


def quantise(model: Path, target: Path) -> Quantised:
    """Write an INT8 version of `model` to `target`.

    Nothing is written where the model has no weights that dynamic quantisation knows (MatMul, Gemm, Conv, LSTM), or where ONNX
    Runtime cannot run the result; `reason` then says so. What it costs in accuracy must be measured (`accuracy.mae`).

    Raises:
        BundleError: the quantiser failed.
    """
    from cellwright.bundle.export import open_session

    content = _quantised(model)
    operations = _integer_operations(content)
    if not operations:
        return Quantised(None, "nothing to quantise: no matrix product, convolution or LSTM with fixed weights in the model")
    try:
        open_session(content)
    except BundleError as error:
        return Quantised(None, f"ONNX Runtime cannot run the INT8 model: {error}")
    write_bytes(target, content)
    return Quantised(target, f"{len(operations)} of the model's operations compute in 8 bits")


def _quantised(model: Path) -> bytes:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    proto = onnx.load(model)
    del proto.graph.value_info[:]  # inferred shapes that quantisation contradicts: ShapeInferenceError otherwise
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a pre-processing step that exported models have behind them
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            quantize_dynamic(proto, path, weight_type=QuantType.QInt8)
            return path.read_bytes()
    except (ValueError, RuntimeError, KeyError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"{model} cannot be quantised: {error}; publish without INT8 (publish.int8: false)") from error
    finally:
        logging.disable(before)


def _integer_operations(content: bytes) -> list[str]:
    import onnx

    graph = onnx.load_from_string(content).graph
    kinds = {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"}
    return [node.op_type for node in graph.node if node.op_type in kinds]
