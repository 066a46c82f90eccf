"""Where the weights of a model file are: found in real files, nothing believed of hostile ones."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from cellwright.delta.binary import Binary
from cellwright.delta.formats import tensors
from cellwright.delta.modes.weights import aligned


def found(path, content: bytes):
    path.write_bytes(content)
    with Binary(path) as file:
        return tensors(file)


def model(scale: float = 1.0, lead: str = "") -> bytes:
    """An ONNX model with weights as raw bytes, as a list of floats, as a constant of a node, and an int64 list."""
    w = (np.arange(12, dtype=np.float32) * scale).reshape(3, 4)
    half = numpy_helper.from_array(w.astype(np.float16), "half")
    listed = helper.make_tensor("listed", TensorProto.FLOAT, [3], [1.0 * scale, 2.0, 3.0])
    constant = helper.make_node("Constant", [], ["steps"], value=numpy_helper.from_array(np.arange(5) * 2))
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k]) for n, k in (("x", 3), ("y", 4)))
    graph = helper.make_graph([constant, product], "g" + lead, [x], [y], [numpy_helper.from_array(w, "w"), half, listed])
    return helper.make_model(graph).SerializeToString()


def test_onnx_tensors_are_where_they_are(tmp_path):
    content = model()
    some = {t.name: t for t in found(tmp_path / "m", content)}
    assert {n: (t.floating, t.width, t.count) for n, t in some.items()} == {
        "w": (True, 4, 48),
        "half": (True, 2, 24),
        "listed": (True, 4, 12),
        "steps": (False, 8, 40),
    }
    onnx.checker.check_model(onnx.load_from_string(content))
    np.testing.assert_array_equal(np.frombuffer(content, "<f4", 12, some["w"].start), np.arange(12))
    np.testing.assert_array_equal(np.frombuffer(content, "<f2", 12, some["half"].start), np.arange(12))
    np.testing.assert_array_equal(np.frombuffer(content, "<f4", 3, some["listed"].start), [1, 2, 3])
    np.testing.assert_array_equal(np.frombuffer(content, "<i8", 5, some["steps"].start), [0, 2, 4, 6, 8])


def test_safetensors_are_where_they_are(tmp_path):
    content = save({"a": np.arange(5, dtype=np.int8), "b": np.arange(6, dtype=np.float64)}, {"note": "x"})
    some = {t.name: t for t in found(tmp_path / "m", content)}
    assert {n: (t.floating, t.width, t.count) for n, t in some.items()} == {"a": (False, 1, 5), "b": (True, 8, 48)}
    np.testing.assert_array_equal(np.frombuffer(content, "<f8", 6, some["b"].start), np.arange(6))


def header(content: object, data: bytes = bytes(64)) -> bytes:
    text = json.dumps(content).encode() if not isinstance(content, bytes) else content
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 40,
        b"\xff" * 40,
        b"no model at all, but long enough",
        header([1]),
        header(b"{" * 50),
        header(b"[" * 100_000),
        header({"a": 1}),
        header({"a": {"dtype": "F32", "data_offsets": [0, 128]}}),
        header({"a": {"dtype": "F32", "data_offsets": [0, 6]}}),
        header({"a": {"dtype": "F32", "data_offsets": [-8, 0]}}),
        header({"a": {"dtype": "F32", "data_offsets": [8, 0]}}),
        header({"a": {"dtype": "F32", "data_offsets": [0, 1e3]}}),
        header({"a": {"dtype": "F32", "data_offsets": [0, 8]}, "b": {"dtype": "F32", "data_offsets": [4, 12]}}),
        (1 << 63).to_bytes(8, "little") + b"{}" * 20,
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(20),  # a graph of 2^63 bytes
        b"\x3a\x04\x2a\x7f\0\0",  # an initialiser that is longer than the graph
        b"\x3a\x00\x3a\x00",  # two graphs
        b"\x3b" * 30,  # a group, which protobuf no longer has
        b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",  # a length without an end
    ],
)
def test_what_is_not_as_its_format_says_is_no_model(content, tmp_path):
    assert found(tmp_path / "m", content) is None


def test_a_file_of_nothing_but_fields_is_given_up(tmp_path, monkeypatch):
    from cellwright.delta.formats import onnx as walked

    monkeypatch.setattr(walked, "_MOST_FIELDS", 1000)
    assert found(tmp_path / "m", b"\x08\x01" * 999) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_gives_places_in_the_file_or_none(data, tmp_path_factory):
    content = bytearray(data.draw(st.sampled_from([model(), save({"a": np.arange(9, dtype=np.float32)})])))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    some = found(tmp_path_factory.mktemp("m") / "m", bytes(content)) or []
    at = 0
    for tensor in some:
        assert at <= tensor.start < tensor.stop <= len(content)
        at = tensor.stop


def pairs(folder, base: bytes, target: bytes):
    (folder / "a").write_bytes(base)
    (folder / "b").write_bytes(target)
    with Binary(folder / "a") as old, Binary(folder / "b") as new:
        return aligned(old, new), {t.name: t.start for t in tensors(old) or []}


def test_tensors_are_aligned_by_name_wherever_they_lie(tmp_path):
    some, places = pairs(tmp_path, model(), model(2.0, "x" * 300))
    assert {p.tensor.name: p.base for p in some} == places
    assert [p.tensor.name for p in some if p.base == p.tensor.start] == ["steps"]  # it lies before the name that grew


def test_tensors_of_other_names_are_aligned_by_form_and_order(tmp_path):
    four, five = np.zeros(4, np.float32), np.zeros(5, np.float32)
    some, places = pairs(tmp_path, save({"a": four, "b": five, "c": four}), save({"a": five, "x": four, "y": four}))
    assert {p.tensor.name: p.base for p in some} == {"a": places["b"], "x": places["a"], "y": places["c"]}


def test_a_tensor_without_a_counterpart_has_none(tmp_path):
    some, _ = pairs(tmp_path, save({"a": np.zeros(4, np.float32)}), save({"a": np.zeros(4, np.float16)}))
    assert [p.base for p in some] == [None]
