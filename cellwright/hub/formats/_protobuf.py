"""A walk over a protobuf message as it lies in a file, in bounded memory: which fields there are, and where.

Wire format: each field is a key (number << 3 | wire type, a varint) and a value: a varint (0), 8 bytes (1), a length and so many
bytes (2), or 4 bytes (5).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

MOST_FIELDS = 4_000_000
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


class Malformed(ValueError):
    """Not a protobuf message, or more of one than is looked at."""


@dataclass(frozen=True)
class Found:
    """A field: its number, and its value (varint) or where it lies (bytes [start, stop))."""

    number: int
    value: int | None
    start: int
    stop: int


class Walk:
    """Fields of messages in one file; the count of all of them is bounded."""

    def __init__(self, content: mmap.mmap | bytes) -> None:
        self._content, self._left = content, MOST_FIELDS

    def fields(self, start: int, stop: int) -> Iterator[Found]:
        """The fields of the message in [start, stop). Raises Malformed."""
        at = start
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise Malformed(f"more than {MOST_FIELDS:,} fields")
            key, at = self._varint(at, stop)
            number, kind = key >> 3, key & 7
            if number == 0:
                raise Malformed("a field of number 0")
            if kind == _VARINT:
                value, after = self._varint(at, stop)
                yield Found(number, value, at, after)
            else:
                begin, after = self._extent(kind, at, stop)
                yield Found(number, None, begin, after)
            at = after

    def _extent(self, kind: int, at: int, stop: int) -> tuple[int, int]:
        if kind == _BYTES:
            length, begin = self._varint(at, stop)
        elif kind in (_EIGHT, _FOUR):
            length, begin = (8 if kind == _EIGHT else 4), at
        else:
            raise Malformed(f"wire type {kind}")
        if begin + length > stop:
            raise Malformed("a field that ends after its message")
        return begin, begin + length

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        while at < stop and shift < 70:
            byte = self._content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise Malformed("a number without end")
