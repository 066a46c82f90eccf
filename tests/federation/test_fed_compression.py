"""Codecs on examples worked out by hand: exact bytes on the wire, exact values after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellwright.errors import FederationError
from cellwright.federation.compression import codec
from cellwright.federation.compression.topk import _gaps, _indices


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_none_is_bit_for_bit_also_for_statistics_in_double_precision():
    delta = {"gram": np.array([[1 / 3]]), "w": f32(0.1)}
    encoded = codec("none").encode(delta)
    assert encoded.lost == {}
    assert codec("none").decode(encoded.arrays, delta)["gram"].dtype == np.float64
    assert codec("none").decode(encoded.arrays, delta)["gram"][0, 0] == 1 / 3


def test_half_precision_keeps_11_bits_and_tells_what_it_lost():
    encoded = codec("fp16").encode({"w": f32(1.0, 1 + 2**-11 + 2**-12, 100_000, -0.5)})
    assert encoded.arrays["w"].dtype == np.float16
    assert encoded.arrays["w"].tolist() == [1.0, 1 + 2**-10, 65504, -0.5]
    np.testing.assert_allclose(encoded.lost["w"], [0, 2**-12 - 2**-11, 100_000 - 65504, 0], atol=1e-7)


def test_int8_nearest_by_hand():
    made = codec("int8", {"rounding": "nearest"})
    encoded = made.encode({"w": f32(-2.54, 0.0, 0.029, 0.031, 2.54), "zero": f32(0, 0)})
    assert encoded.arrays["q/w"].tolist() == [-127, 0, 1, 2, 127]  # a level is 2.54 / 127 = 0.02
    assert encoded.arrays["scales"].tolist() == pytest.approx([0.02, 0])
    assert made.decode(encoded.arrays, {"w": f32(*[0] * 5), "zero": f32(0, 0)})["w"] == pytest.approx(
        [-2.54, 0, 0.02, 0.04, 2.54]
    )
    assert sum(a.nbytes for a in encoded.arrays.values()) == 7 + 2 * 4


def test_int8_errs_by_less_than_a_level_and_not_at_all_in_the_mean():
    made = codec("int8")
    value = 0.3 / 127  # a third of the way between two levels of a tensor whose largest value is 1
    found = []
    for i in range(400):  # other bytes, other draws
        delta = {"w": f32(1.0, value, i * 1e-6)}
        decoded = made.decode(made.encode(delta).arrays, delta)["w"]
        assert abs(decoded[1] - value) < 1 / 127
        found.append(decoded[1])
    assert len(set(found)) == 2
    assert np.mean(found) == pytest.approx(value, abs=3 * float(np.std(found)) / 20)


def test_int8_scales_that_no_encoder_makes_are_refused():
    made, delta = codec("int8"), {"w": f32(1, 2)}
    for bad in (np.nan, np.inf, -1.0):
        with pytest.raises(FederationError, match="finite and not negative"):
            made.decode({**made.encode(delta).arrays, "scales": f32(bad)}, delta)


def test_topk_keeps_the_largest_over_all_tensors_and_counts_bytes_exactly():
    made = codec("topk", {"share": 0.3})
    delta = {"a": f32(0.1, -5, 0.2, 0.3).reshape(2, 2), "b": f32(4, 0.05, -3, 0, 0.1, 0.2)}
    encoded = made.encode(delta)
    assert encoded.arrays["values"].tolist() == [-5, 4, -3]
    assert encoded.arrays["gaps"].tolist() == [1, 2, 1]  # places 1, 4 and 6
    assert sum(a.nbytes for a in encoded.arrays.values()) == 3 * 4 + 3
    decoded = made.decode(encoded.arrays, delta)
    assert decoded["a"].tolist() == [[0, -5], [0, 0]]
    assert decoded["b"].tolist() == [4, 0, -3, 0, 0, 0]
    np.testing.assert_array_equal(encoded.lost["b"], f32(0, 0.05, 0, 0, 0.1, 0.2))


def test_topk_of_equal_values_takes_the_first():
    encoded = codec("topk", {"share": 0.5}).encode({"w": f32(1, -1, 1, 1)})
    assert encoded.arrays["gaps"].tolist() == [0, 0]


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 3000), max_size=40))
def test_gaps_of_bytes_give_the_indices_back(chosen):
    indices = np.array(sorted(chosen), np.int64)
    gaps = _gaps(indices)
    assert gaps.dtype == np.uint8
    assert _indices(gaps, len(indices), 3001).tolist() == indices.tolist()


@pytest.mark.parametrize(
    ("gaps", "why"),
    [
        ([1, 2, 9], "beyond the end"),
        ([1, 2], "too few"),
        ([1, 2, 0, 0], "too many"),
        ([1, 2, 255], "ends with an escape"),
        ([255, 1, 2], "far beyond the end"),
    ],
)
def test_indices_out_of_range_are_refused(gaps, why):
    made, like = codec("topk", {"share": 0.3}), {"w": np.zeros(10, np.float32)}
    with pytest.raises(FederationError, match="gaps"):
        made.decode({"values": f32(1, 2, 3), "gaps": np.array(gaps, np.uint8)}, like)


def test_what_topk_leaves_out_is_sent_later():
    assert codec("topk").feedback  # owners add what was lost to the next update; a codec that is right in the mean needs none
    assert not codec("int8").feedback
    made, lost, sent = codec("topk", {"share": 0.25}), 0, np.zeros(4)
    for _ in range(40):
        encoded = made.encode({"w": f32(1.0, 0.4, 0.2, 0.1) + lost})
        lost = encoded.lost["w"]
        sent += made.decode(encoded.arrays, {"w": np.zeros(4, np.float32)})["w"]
    np.testing.assert_allclose(sent + lost, [40, 16, 8, 4], rtol=1e-5)
    assert sent[3] > 0
