"""A Parcel as a Flower RecordDict: arrays as an ArrayRecord, values and blobs as ConfigRecords.

Arrays travel as Flower writes them itself, in NumPy's file format. Nothing of that format is parsed on arrival: the bytes must begin
with the one header that the declared type and shape have, so neither a pickle nor a lying header is ever looked into.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Arrays, Parcel

ARRAYS, VALUES, BLOBS = "arrays", "values", "blobs"
LARGEST_BYTES = 1 << 30  # of one parcel: 268 million float32
MOST_NAMES = 16_384  # arrays, values and blobs of one parcel
LONGEST_NAME = 512
DTYPES = frozenset(
    {"float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"}
)
_FORMAT = "numpy.ndarray"  # Flower's name of NumPy's file format
_MOST_DIMENSIONS = 8
_Form = tuple[str, tuple[int, ...], str, bytes]  # what Flower's Array is made of
_ID = 64  # hexadecimal digits by which one Flower object names another
_CHUNK_BYTES = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE  # Flower cuts arrays into objects of this size


class Packer:
    """Packs parcels; an array that several of them hold is serialised once. Keep the parcels alive as long as the packer."""

    def __init__(self) -> None:
        self._done: dict[int, _Form] = {}

    def pack(self, parcel: Parcel) -> Any:
        """The parcel as a RecordDict that shares nothing that can be changed with anyone.

        Raises:
            FederationError: it holds what cannot travel.
        """
        if wide := [name for name, v in parcel.values.items() if isinstance(v, int) and not -(1 << 63) <= v < 1 << 64]:
            raise FederationError(f"value '{wide[0]}' of a message must fit 64 bits, found {parcel.values[wide[0]]}")
        records = RecordDict()
        try:
            records[ARRAYS] = ArrayRecord()
            for name, array in parcel.arrays.items():
                records[ARRAYS][name] = Array(*self._form(array))
            records[VALUES] = ConfigRecord(dict(parcel.values))
            records[BLOBS] = ConfigRecord(dict(parcel.blobs))
        except TypeError as error:
            raise FederationError(f"a message may hold arrays, bytes, text, numbers and booleans only: {error}") from None
        return records

    def _form(self, array: np.ndarray) -> _Form:
        form = self._done.get(id(array))
        if form is None:
            form = self._done[id(array)] = _form(array)
        return form


def pack(parcel: Parcel) -> Any:
    """One parcel as a RecordDict. See `Packer.pack`."""
    return Packer().pack(parcel)


def packed_array(array: np.ndarray) -> Any:
    """A NumPy array as Flower's Array, byte for byte what Flower makes of it.

    Raises:
        FederationError: its type cannot travel.
    """
    return Array(*_form(array))


def _form(array: np.ndarray) -> _Form:
    name = array.dtype.name
    if name not in DTYPES:
        raise FederationError(f"an array of type {array.dtype} cannot travel; known: {', '.join(sorted(DTYPES))}")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return name, native.shape, _FORMAT, _header(name, native.shape) + native.tobytes()


def unpack(records: Any) -> Parcel:
    """The parcel of a RecordDict; its arrays are the caller's own.

    Raises:
        Refused: it is not what `pack` makes, or larger than LARGEST_BYTES.
    """
    if set(records) != {ARRAYS, VALUES, BLOBS}:
        raise Refused(f"a message holds the records {ARRAYS}, {VALUES} and {BLOBS}; found {sorted(records)[:8]}")
    arrays, values, blobs = records[ARRAYS], records[VALUES], records[BLOBS]
    if not isinstance(arrays, ArrayRecord) or not all(isinstance(r, ConfigRecord) for r in (values, blobs)):
        raise Refused("the records of a message are of other types than they must be")
    _check_names(arrays, values, blobs)
    _check_bytes(arrays, values, blobs)
    for name, value in values.items():
        if not isinstance(value, str | int | float | bool):
            raise Refused(f"value '{name}' of a message must be text, a number or a boolean, found {type(value).__name__}")
    for name, blob in blobs.items():
        if not isinstance(blob, bytes):
            raise Refused(f"blob '{name}' of a message must be bytes, found {type(blob).__name__}")
    return Parcel(_unpacked(arrays), dict(blobs), dict(values))


def _check_names(*records: Any) -> None:
    if (count := sum(map(len, records))) > MOST_NAMES:
        raise Refused(f"a message of {count} names was refused; at most {MOST_NAMES} are taken")
    for record in records:
        for name in record:
            if len(name) > LONGEST_NAME:
                raise Refused(f"a message with a name of {len(name)} characters was refused; at most {LONGEST_NAME} are taken")


def _check_bytes(arrays: Any, values: Any, blobs: Any) -> None:
    total = sum(len(a.data) for a in arrays.values()) + sum(
        len(v) for r in (values, blobs) for v in r.values() if hasattr(v, "__len__")
    )
    if total > LARGEST_BYTES:
        raise Refused(f"a message of {total:,} bytes was refused; at most {LARGEST_BYTES:,} are taken")


def _unpacked(record: Any) -> Arrays:
    return {name: _array_of(name, array) for name, array in record.items()}


def _array_of(name: str, array: Any) -> np.ndarray:
    shape = tuple(array.shape)
    if array.stype != _FORMAT or array.dtype not in DTYPES or not _is_shape(shape):
        raise Refused(
            f"array '{name[:80]}' is of a type or shape that is not taken: {array.stype} {array.dtype} {shape[:_MOST_DIMENSIONS]}"
        )
    dtype, count = np.dtype(array.dtype), math.prod(shape)
    header = _header(array.dtype, shape)
    if len(array.data) != len(header) + count * dtype.itemsize or not array.data.startswith(header):
        raise Refused(f"array '{name[:80]}': its {len(array.data)} bytes are not those of {array.dtype} {shape}")
    out = np.empty(shape, dtype)
    if count:
        out.reshape(-1)[:] = np.frombuffer(array.data, dtype, count, len(header))
    return out


def _is_shape(shape: tuple[Any, ...]) -> bool:
    return len(shape) <= _MOST_DIMENSIONS and all(type(n) is int and 0 <= n <= LARGEST_BYTES for n in shape)


@lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    out = BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return out.getvalue()


def _fresh(array: Any) -> Any:
    """Another Array around the same bytes, which cannot be changed."""
    return Array(array.dtype, array.shape, array.stype, array.data)


def copied(records: Any) -> Any:
    """A RecordDict that can be changed without the other noticing: bytes and text are shared, all else is new."""
    out = RecordDict()
    for name, record in records.items():
        own = record.copy()  # its values are known to be in order: Flower checks none of them again
        for key, value in record.items():
            if isinstance(value, Array):
                own[key] = _fresh(value)
            elif isinstance(value, list):
                own[key] = list(value)
        out[name] = own
    return out


def size(records: Any) -> int:
    """Exact bytes of a packed parcel as Flower serialises it: the record and each distinct object below it, once.

    Counted without serialising and hashing it all once more; a test holds it against Flower's own objects.
    """
    arrays = {(a.dtype, a.shape, a.data) for a in records[ARRAYS].values()}
    configs = {record.deflate() for record in (records[VALUES], records[BLOBS])}
    return (
        _object("RecordDict", len(configs) + 1, _index(records))
        + _object("ArrayRecord", len(arrays), _index(records[ARRAYS]))
        + sum(map(len, configs))
        + sum(_array_object(*array) for array in arrays)
        + sum(_object("ArrayChunk", 0, len(piece)) for piece in {piece for *_, data in arrays for piece in _pieces(data)})
    )


def _index(names: Any) -> int:
    return len(json.dumps(dict.fromkeys(names, "0" * _ID)))


def _array_object(dtype: str, shape: tuple[int, ...], data: bytes) -> int:
    pieces = _pieces(data)
    distinct = list(dict.fromkeys(pieces))
    order = [distinct.index(piece) for piece in pieces]
    body = {"dtype": dtype, "shape": shape, "stype": _FORMAT, "arraychunk_ids": order}
    return _object("Array", len(distinct), len(json.dumps(body)))


def _pieces(data: bytes) -> list[bytes]:
    if len(data) <= _CHUNK_BYTES:
        return [data]
    return [data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES)]


def _object(kind: str, children: int, body_bytes: int) -> int:
    """Bytes of one Flower object: "<kind> <id>,<id>,… <length of the body>", a zero byte, the body."""
    ids = children * (_ID + 1) - 1 if children else 0
    return len(kind) + 1 + ids + 1 + len(str(body_bytes)) + 1 + body_bytes
