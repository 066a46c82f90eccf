"""INT8: made where there are weights to make it of, close to fp32, and refused in words where not."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cellwright.bundle.export import open_session, run_session
from cellwright.bundle.quantise import quantise


def model_of(nodes, weights, path):
    """An ONNX model with the inputs and the output that a bundle's has: history of 6 steps, one site, one channel; horizon 3."""
    inputs = [
        helper.make_tensor_value_info("history", TensorProto.FLOAT, ["batch", 6, 1, 1]),
        helper.make_tensor_value_info("known", TensorProto.FLOAT, ["batch", 9, 0]),
        helper.make_tensor_value_info("site", TensorProto.INT64, ["batch"]),
    ]
    output = helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["batch", 3, 1, 1, 1])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def run(path, history):
    return run_session(open_session(path), history, np.zeros((len(history), 9, 0)), np.zeros(len(history)))


@pytest.fixture
def linear(tmp_path):
    rng = np.random.default_rng(0)
    return model_of(
        [
            helper.make_node("Reshape", ["history", "flat"], ["x"]),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("Reshape", ["y", "out"], ["forecast"]),
        ],
        {
            "w": rng.normal(size=(6, 3)).astype(np.float32),
            "flat": np.array([-1, 6], np.int64),
            "out": np.array([-1, 3, 1, 1, 1], np.int64),
        },
        tmp_path / "linear.onnx",
    )


def test_a_matrix_product_computes_in_8_bits(linear, tmp_path):
    made = quantise(linear, tmp_path / "small" / "model.int8.onnx")
    assert made.path == tmp_path / "small" / "model.int8.onnx"
    assert made.reason == "1 of the model's operations compute in 8 bits"
    history = np.linspace(-1, 1, 24).reshape(4, 6, 1, 1)
    whole, small = run(linear, history), run(made.path, history)
    assert not np.array_equal(whole, small)
    np.testing.assert_allclose(small, whole, atol=0.05)


def test_equal_models_give_equal_int8_bytes(linear, tmp_path):
    one, two = (quantise(linear, tmp_path / name).path.read_bytes() for name in ("a.onnx", "b.onnx"))
    assert one == two


def test_a_model_without_weights_has_nothing_to_quantise(tmp_path):
    persistence = model_of(
        [
            helper.make_node("Slice", ["history", "from", "to", "axis"], ["last"]),
            helper.make_node("Tile", ["last", "times"], ["steps"]),
            helper.make_node("Reshape", ["steps", "out"], ["forecast"]),
        ],
        {
            "from": np.array([5], np.int64),
            "to": np.array([6], np.int64),
            "axis": np.array([1], np.int64),
            "times": np.array([1, 3, 1, 1], np.int64),
            "out": np.array([-1, 3, 1, 1, 1], np.int64),
        },
        tmp_path / "persistence.onnx",
    )
    made = quantise(persistence, tmp_path / "model.int8.onnx")
    assert made.path is None
    assert made.reason.startswith("nothing to quantise")
    assert not (tmp_path / "model.int8.onnx").exists()
