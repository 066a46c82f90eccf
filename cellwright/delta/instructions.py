"""How a file is put together: copied from the base, new, or numbers that differ from the base's by so much.

Instructions travel in the stream `how`: their count, then for each its code, how many bytes of the target it makes and, where it has
one, its place in the base. Integers are LEB128: seven bits a byte, least significant first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cellwright.delta.binary import PART_BYTES, Binary
from cellwright.delta.modes._contract import Sink
from cellwright.delta.numbers import CODINGS, Coding, coding
from cellwright.delta.streams import Sources, Streams
from cellwright.errors import DeltaError

MOST = 1 << 20  # instructions of a patch
_CODES = ("new", "copy", *CODINGS)


@dataclass(frozen=True)
class Instruction:
    """`count` bytes of the target, made in the way that `code` names, from the base's bytes at `base` on."""

    code: str
    count: int
    base: int | None = None

    @classmethod
    def new(cls, count: int) -> Instruction:
        """Bytes that the patch carries."""
        return cls("new", count)

    @property
    def coding(self) -> Coding | None:
        """How its numbers are written; None: it has none."""
        return coding(self.code) if self.code in CODINGS else None


def spell(told: Iterable[Instruction], base: Binary, target: Binary, into: Streams) -> None:
    """Write the instructions, which cover the target from its first byte to its last, and what they need."""
    kept = [x for x in told if x.count]
    if len(kept) > MOST:
        raise DeltaError(f"{target.path} differs in {len(kept)} places, at most {MOST} are described; offer the whole file")
    into.write("how", b"".join((_varint(len(kept)), *map(_spelt, kept))))
    at = 0
    for told_one in kept:
        if told_one.coding:
            told_one.coding.write(base, told_one.base, target, at, told_one.count, into)
        elif told_one.code == "new":
            for part in target.parts(at, at + told_one.count):
                into.write("new", part)
        at += told_one.count


def carry_out(base: Binary, streams: Sources, sink: Sink) -> None:
    """Rebuild what `spell` described. Raises DeltaError."""
    for told in _read(streams, base):
        if told.count > sink.left:
            raise DeltaError(f"the patch makes {told.count} bytes where {sink.left} are left of the target; it is refused")
        if told.coding:
            told.coding.read(base, told.base, told.count, streams, sink)
        elif told.base is None:
            for count in _parts(told.count):
                sink.write(streams.read("new", count))
        else:
            for part in base.parts(told.base, told.base + told.count):
                sink.write(part)


def _parts(count: int) -> Iterator[int]:
    for at in range(0, count, PART_BYTES):
        yield min(PART_BYTES, count - at)


def _spelt(told: Instruction) -> bytes:
    head = bytes([_CODES.index(told.code)]) + _varint(told.count)
    return head if told.base is None else head + _varint(told.base)


def _read(streams: Sources, base: Binary) -> Iterator[Instruction]:
    count = _read_varint(streams)
    if count > MOST:
        raise DeltaError(f"the patch has {count} instructions, at most {MOST} are carried out; it is refused")
    for _ in range(count):
        number = streams.read("how", 1)[0]
        if number >= len(_CODES):
            raise DeltaError(f"the patch has an instruction {number}, there are {len(_CODES)}; update this device")
        code, size = _CODES[number], _read_varint(streams)
        based = code == "copy" or (code in CODINGS and coding(code).based)
        place = _read_varint(streams) if based else None
        if place is not None and place + size > base.bytes:
            raise DeltaError(f"the patch copies bytes {place} to {place + size}, the base has {base.bytes}; it is refused")
        yield Instruction(code, size, place)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _read_varint(streams: Sources) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = streams.read("how", 1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise DeltaError("the patch has a number of more than 63 bits; it is refused")
