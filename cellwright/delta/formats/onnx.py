"""ONNX: the graph's initialisers and constants, found by walking the protobuf message over what is not needed, without decoding it.

Messages, by their numbers in onnx.proto (ONNX 1.23): ModelProto.graph 7; GraphProto.node 1, initializer 5; NodeProto.output 2,
attribute 5; AttributeProto.t 5; TensorProto.data_type 2, float_data 4, name 8, raw_data 9, double_data 10. Weights that lie in a file
beside the model (external data) are that file's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cellwright.delta.binary import Binary
from cellwright.delta.formats._contract import Tensor, Unreadable

_MOST_FIELDS = 2_000_000  # of a file; a walk takes seconds at most
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_NAME = 4096  # bytes
_TYPES = {  # TensorProto.DataType: (floating, bytes)
    1: (True, 4), 10: (True, 2), 16: (True, 2), 11: (True, 8),
    2: (False, 1), 3: (False, 1), 4: (False, 2), 5: (False, 2), 6: (False, 4), 7: (False, 8), 9: (False, 1), 12: (False, 4),
    13: (False, 8), 17: (False, 1), 18: (False, 1), 19: (False, 1), 20: (False, 1),
}  # fmt: skip


@dataclass(frozen=True)
class _Field:
    """A field of a message: its number, and where its content is (bytes) or what it is (varint)."""

    number: int
    wire: int
    start: int
    stop: int
    value: int


class _Walk:
    """Over the fields of messages of one file, of which there may only be so many."""

    def __init__(self, file: Binary) -> None:
        self._file, self._left = file, _MOST_FIELDS

    def fields(self, start: int, stop: int) -> Iterator[_Field]:
        """Of the message from `start` to `stop`. Raises Unreadable where it is none."""
        while start < stop:
            self._left -= 1
            key, at = self._varint(start, stop)
            number, wire = key >> 3, key & 7
            if not self._left or not number:
                raise Unreadable
            value, end = self._content(wire, at, stop)
            if end > stop:
                raise Unreadable
            yield _Field(number, wire, value if wire == _BYTES else at, end, value)
            start = end

    def messages(self, start: int, stop: int, number: int) -> Iterator[_Field]:
        """Fields of that number that hold bytes."""
        return (f for f in self.fields(start, stop) if f.number == number and f.wire == _BYTES)

    def text(self, field: _Field) -> str:
        return self._file.read(field.start, min(field.stop - field.start, _LONGEST_NAME)).decode("utf-8", "replace")

    def _content(self, wire: int, at: int, stop: int) -> tuple[int, int]:
        """(value, or start of the bytes; end)."""
        if wire == _VARINT:
            return self._varint(at, stop)
        if wire == _BYTES:
            length, start = self._varint(at, stop)
            return start, start + length
        if wire in (_FIXED32, _FIXED64):
            return 0, at + (4 if wire == _FIXED32 else 8)
        raise Unreadable

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        value = 0
        for number, byte in enumerate(self._file.read(at, max(0, min(10, stop - at)))):
            value |= (byte & 0x7F) << (7 * number)
            if byte < 0x80:
                return value, at + number + 1
        raise Unreadable


def tensors(file: Binary) -> Iterator[Tensor]:
    """Initialisers, and the constants of nodes by the name of what the node gives out."""
    walk = _Walk(file)
    graphs = [f for f in walk.fields(0, file.bytes) if f.number == 7 and f.wire == _BYTES]
    if len(graphs) != 1:
        raise Unreadable
    for part in walk.fields(graphs[0].start, graphs[0].stop):
        if part.number == 5 and part.wire == _BYTES:
            yield from _tensor(walk, part, None)
        elif part.number == 1 and part.wire == _BYTES:
            yield from _constants(walk, part)


def _constants(walk: _Walk, node: _Field) -> Iterator[Tensor]:
    inside = list(walk.fields(node.start, node.stop))
    name = next((walk.text(f) for f in inside if f.number == 2 and f.wire == _BYTES), "")
    for attribute in (f for f in inside if f.number == 5 and f.wire == _BYTES):
        for tensor in walk.messages(attribute.start, attribute.stop, 5):
            yield from _tensor(walk, tensor, name)


def _tensor(walk: _Walk, message: _Field, name: str | None) -> Iterator[Tensor]:
    kind, data = 0, None
    for f in walk.fields(message.start, message.stop):
        if f.number == 2 and f.wire == _VARINT:
            kind = f.value
        elif f.wire == _BYTES and f.number in (4, 9, 10) and f.stop > f.start:
            data = f
        elif f.number == 8 and f.wire == _BYTES and name is None:
            name = walk.text(f)
    if data and kind in _TYPES:
        floating, width = _TYPES[kind]
        yield Tensor(name or "", floating, width, data.start, data.stop - data.start)
