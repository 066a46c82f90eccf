"""Every codec: nothing is lost unseen, what it loses is bounded and can be fed back, and malformed arrays are refused."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as drawn

from cellwright.errors import FederationError, ParamsError, UnknownName
from cellwright.families import member, members
from cellwright.federation.compression import codec
from cellwright.federation.contract import Arrays

NAMES = members("cellwright.federation.compression")
each = pytest.mark.parametrize("name", NAMES)

values = st.floats(-1000, 1000, width=32)
updates = st.fixed_dictionaries(
    {name: drawn(np.float32, shape, elements=values) for name, shape in (("w", (3, 4)), ("b", 5), ("s", ()))}
)


def update(seed: int = 0, size: int = 40) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "core.weight": rng.normal(0, 0.1, (size, 20)).astype(np.float32),
        "core.bias": rng.normal(0, 0.01, size).astype(np.float32),
        "head.weight": np.zeros((3, 2), np.float32),
    }


def sent_bytes(encoded: Arrays) -> int:
    return sum(array.nbytes for array in encoded.values())


def test_the_family_is_whole():
    assert {"none", "fp16", "int8", "topk"} <= set(NAMES)


@each
def test_it_has_a_title_and_documented_options(name):
    module = member("cellwright.federation.compression", name, what="codec")
    assert module.Codec.title
    assert all(field.metadata["doc"] for field in fields(module.Options))


@each
@settings(max_examples=30, deadline=None)
@given(delta=updates)
def test_decoded_and_lost_are_the_original(name, delta):
    made = codec(name)
    encoded = made.encode(delta)
    decoded = made.decode(encoded.arrays, delta)
    assert list(decoded) == list(delta)
    for key, original in delta.items():
        assert decoded[key].dtype == np.float32
        assert decoded[key].shape == original.shape
        lost = encoded.lost.get(key, np.zeros_like(original))
        np.testing.assert_allclose(decoded[key] + lost, original, rtol=1e-6, atol=1e-6 * np.abs(original).max(initial=0))


@each
def test_an_update_is_not_changed_by_encoding_and_encodes_alike_every_time(name):
    delta, before = update(), update()
    one, other = codec(name).encode(delta), codec(name).encode(delta)
    for key in delta:
        np.testing.assert_array_equal(delta[key], before[key])
    assert list(one.arrays) == list(other.arrays)
    for key, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[key])


@each
def test_the_sum_of_error_fed_updates_comes_to_the_sum_of_the_originals(name):
    made, rounds = codec(name), 60
    lost: Arrays = {}
    total, wanted = {}, {}
    for round_ in range(rounds):
        original = update(round_)
        fed = {key: array + lost[key] if lost else array for key, array in original.items()}
        encoded = made.encode(fed)
        lost = encoded.lost
        for key, array in made.decode(encoded.arrays, original).items():
            total[key] = total.get(key, 0) + array.astype(np.float64)
            wanted[key] = wanted.get(key, 0) + original[key].astype(np.float64)
    for key, value in wanted.items():  # what is still missing is what the last round lost, and nothing else
        missing = lost[key] if lost else 0
        np.testing.assert_allclose(total[key] + missing, value, atol=1e-4)
        assert np.abs(np.asarray(missing)).max(initial=0) < 2  # it does not grow with the rounds


@each
def test_an_update_without_arrays_travels_as_one(name):
    made = codec(name)
    assert made.decode(made.encode({}).arrays, {}) == {}


@each
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda a: {}, id="nothing"),
        pytest.param(lambda a: {**a, "more": np.zeros(1, np.float32)}, id="one-more"),
        pytest.param(lambda a: dict(list(a.items())[1:]), id="one-missing"),
        pytest.param(lambda a: {k: v.astype(np.float64) for k, v in a.items()}, id="other-type"),
        pytest.param(lambda a: {k: np.resize(v, (*v.shape, 2)) for k, v in a.items()}, id="other-shape"),
        pytest.param(lambda a: {k: np.resize(v, 100_000) for k, v in a.items()}, id="huge"),
        pytest.param(lambda a: {k: v.astype(object) for k, v in a.items()}, id="objects"),
    ],
)
def test_malformed_arrays_are_refused(name, spoil):
    made, delta = codec(name), update()
    with pytest.raises(FederationError, match=r"expected|tell"):
        made.decode(spoil(made.encode(delta).arrays), delta)


@each
def test_the_update_of_another_network_is_refused(name):
    made = codec(name)
    with pytest.raises(FederationError, match=r"same network|expected"):
        made.decode(made.encode(update(size=41)).arrays, update(size=40))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "none"])
def test_what_is_not_finite_is_not_compressed_and_the_error_names_it(name):
    for bad in (np.nan, np.inf):
        delta = update()
        delta["core.bias"][3] = bad
        with pytest.raises(FederationError, match=r"core\.bias.*not finite"):
            codec(name).encode(delta)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "none"])
def test_it_makes_fewer_bytes(name):
    delta = update()
    assert sent_bytes(codec(name).encode(delta).arrays) < 0.51 * sent_bytes(delta)


def test_an_unknown_codec_or_option_is_named():
    with pytest.raises(UnknownName, match="topk"):
        codec("topq")
    with pytest.raises(ParamsError, match=r"federation\.compression_options.*share"):
        codec("topk", {"shore": 0.1})
    with pytest.raises(ParamsError, match="share"):
        codec("topk", {"share": 1.5})
