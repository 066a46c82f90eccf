"""A parcel as a Flower record: nothing of it changes on the way, its bytes are counted exactly, and what is malformed is refused."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Parcel
from cellwright.federation.runtimes import wire

ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=12),
    hnp.arrays(
        st.sampled_from(sorted(wire.DTYPES)).map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    ),
    max_size=5,
)
VALUES = st.dictionaries(
    st.text(max_size=8),
    st.text(max_size=20) | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False),
    max_size=5,
)
PARCELS = st.builds(Parcel, ARRAYS, st.dictionaries(st.text(max_size=8), st.binary(max_size=40), max_size=3), VALUES)


def serialised(records: RecordDict) -> int:
    """Bytes of all that Flower itself would push for these records."""
    return sum(len(o.deflate()) for o in get_all_nested_objects(records).values())


@settings(max_examples=60, deadline=None)
@given(PARCELS)
def test_a_parcel_arrives_as_it_was_sent_and_its_bytes_are_those_flower_sends(parcel: Parcel) -> None:
    records = wire.pack(parcel)
    back = wire.unpack(records)
    assert list(back.arrays) == list(parcel.arrays)
    assert [(a.dtype, a.shape) for a in back.arrays.values()] == [(a.dtype, a.shape) for a in parcel.arrays.values()]
    assert dict(back.values) == dict(parcel.values)
    assert [type(v) for v in back.values.values()] == [type(v) for v in parcel.values.values()]
    assert back.digest() == parcel.digest()
    assert wire.size(records) == serialised(records)


def test_arrays_are_written_as_flower_writes_them() -> None:
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.array(2.5), np.empty((0, 3), np.int64), np.eye(3)[::2].T):
        assert wire.packed_array(array).data == Array(array).data


def test_arrays_of_several_chunks_with_equal_parts_are_counted_once_as_flower_sends_them() -> None:
    big = np.zeros(3_000_000, np.float32)  # 12 MB: chunks of 5 MB, of which all but the first and last are alike
    records = wire.pack(Parcel({"a": big, "b": big.copy(), "c": np.zeros(3, np.float32)}))
    assert wire.size(records) == serialised(records)


def test_arrays_of_another_byte_order_arrive_as_numbers_of_this_machine() -> None:
    array = wire.unpack(wire.pack(Parcel({"a": np.array([1.5, -2.0], ">f4")}))).arrays["a"]
    assert array.dtype == np.float32
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, [1.5, -2.0])


def test_received_arrays_are_the_receivers_own() -> None:
    records = wire.pack(Parcel({"a": np.ones(3, np.float32)}))
    wire.unpack(records).arrays["a"][:] = 7
    np.testing.assert_array_equal(wire.unpack(records).arrays["a"], [1, 1, 1])


def test_a_copy_can_be_changed_without_the_original() -> None:
    records = wire.pack(Parcel({"a": np.ones(3)}, values={"round": 1}))
    copy = wire.copied(records)
    copy[wire.ARRAYS].pop("a")
    copy[wire.VALUES]["round"] = 2
    del copy[wire.BLOBS]
    assert wire.unpack(records).values == {"round": 1}
    assert list(records[wire.ARRAYS]) == ["a"]


def _with(**records: object) -> RecordDict:
    good = wire.pack(Parcel({"a": np.ones(3, np.float32)}, {"k": b"1"}, {"v": 1}))
    for name, record in records.items():
        good[name] = record
    return good


def _arrays(**changes: object) -> RecordDict:
    array = wire.packed_array(np.ones(3, np.float32))
    for name, value in changes.items():
        setattr(array, name, value)
    return _with(arrays=ArrayRecord({"a": array}))


def _pickled() -> RecordDict:
    """An array of objects: NumPy's format holds it as a pickle."""
    import io

    out = io.BytesIO()
    np.save(out, np.array([print], object), allow_pickle=True)
    return _arrays(dtype="object", shape=(1,), data=out.getvalue())


@pytest.mark.parametrize(
    "records",
    [
        _arrays(data=b""),
        _arrays(data=wire.packed_array(np.ones(3, np.float32)).data[:-1]),
        _arrays(data=wire.packed_array(np.ones(3, np.float32)).data + b"\0"),
        _arrays(shape=(4,)),
        _arrays(shape=(1 << 40,)),
        _arrays(shape=(-3,)),
        _arrays(shape=(1,) * 9),
        _arrays(dtype="int32"),
        _arrays(stype="pickle"),
        _pickled(),
        _with(more=ConfigRecord({"x": 1})),
        _with(values=ConfigRecord({"x": [1, 2]})),
        _with(values=ConfigRecord({"x": b"1"})),
        _with(blobs=ConfigRecord({"x": "text"})),
        _with(values=ArrayRecord()),
        _with(values=ConfigRecord({"x" * 513: 1})),
        _with(values=ConfigRecord({str(i): i for i in range(wire.MOST_NAMES)})),
        RecordDict(),
    ],
)
def test_a_malformed_message_is_refused(records: RecordDict) -> None:
    with pytest.raises(Refused):
        wire.unpack(records)


def test_a_message_larger_than_allowed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LARGEST_BYTES", 1000)
    with pytest.raises(Refused, match="at most 1,000"):
        wire.unpack(wire.pack(Parcel(blobs={"a": bytes(600), "b": bytes(600)})))


@pytest.mark.parametrize("parcel", [Parcel({"a": np.array([None])}), Parcel(values={"a": None}), Parcel(values={"a": 1 << 65})])
def test_what_cannot_travel_is_not_sent(parcel: Parcel) -> None:
    with pytest.raises(FederationError):
        wire.size(wire.pack(parcel))
