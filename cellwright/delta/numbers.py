"""Numbers as their difference from other numbers, exactly: a small integer each, its bytes sorted by weight.

`ulp`: floats (IEEE 754 binary16, bfloat16, binary32, binary64). Their bit patterns are put in the order of their values, so that
neighbouring floats are neighbouring integers; the difference counts how many floats lie between the two (units in the last place,
ULP). That is a quantised difference, with the step that the format itself has at that value, so it leaves no remainder: what a coarser
step would leave over are the low bytes here, and they are carried too.
`int`: integers (and quantised weights): their difference.
`plain`: no base; the bytes sorted alone make exponents compressible.

Differences are taken modulo 2^bits, folded so that small ones of either sign are small (0, -1, 1, -2, ...), and byte k of each goes to
stream k: the high bytes are nearly always 0 and cost next to nothing, the low ones are noise and cost what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from cellwright.delta.binary import PART_BYTES, Binary
from cellwright.delta.modes._contract import Sink
from cellwright.delta.streams import PLANE_WINDOW_LOG, Sources, Streams
from cellwright.errors import DeltaError

_WIDTHS = {"ulp": (2, 4, 8), "int": (1, 2, 4, 8), "plain": (2, 4, 8)}
CODINGS = tuple(f"{kind}{width}" for kind, widths in _WIDTHS.items() for width in widths)


@dataclass(frozen=True)
class Coding:
    """`kind` as above, `width` bytes a number, little-endian."""

    kind: str
    width: int

    @property
    def based(self) -> bool:
        """Whether it needs numbers of the base."""
        return self.kind != "plain"

    def encode(self, target: np.ndarray, base: np.ndarray | None) -> np.ndarray:
        """(numbers,) unsigned of both to (width, numbers) uint8, most significant plane last."""
        found = target
        if self.kind == "ulp" and base is not None:
            found = _folded(_ordered(target) - _ordered(base))
        elif self.kind == "int" and base is not None:
            found = _folded(target - base)
        return np.ascontiguousarray(found.view(np.uint8).reshape(-1, self.width).T)

    def decode(self, planes: np.ndarray, base: np.ndarray | None) -> np.ndarray:
        """The inverse of `encode`: (numbers,) unsigned."""
        found = np.ascontiguousarray(planes.T).view(f"<u{self.width}").reshape(-1)
        if self.kind == "ulp" and base is not None:
            found = _unordered(_unfolded(found) + _ordered(base))
        elif self.kind == "int" and base is not None:
            found = _unfolded(found) + base
        return found

    def write(self, base: Binary, base_at: int | None, target: Binary, at: int, count: int, into: Streams) -> None:
        """Append the planes of `count` bytes."""
        for start in range(0, count, PART_BYTES):
            part = min(PART_BYTES, count - start)
            planes = self.encode(self._numbers(target, at + start, part), self._based_on(base, base_at, start, part))
            for number, plane in enumerate(planes):
                into.write(f"{self.kind}{self.width}.{number}", plane.data, window_log=PLANE_WINDOW_LOG)

    def read(self, base: Binary, base_at: int | None, count: int, streams: Sources, sink: Sink) -> None:
        """Rebuild `count` bytes from the planes. Raises DeltaError."""
        if count % self.width:
            raise DeltaError(f"the patch makes {count} bytes of numbers of {self.width} bytes; it is refused")
        for start in range(0, count, PART_BYTES):
            part = min(PART_BYTES, count - start)
            planes = [streams.read(f"{self.kind}{self.width}.{n}", part // self.width) for n in range(self.width)]
            stacked = np.frombuffer(b"".join(planes), np.uint8).reshape(self.width, -1)
            sink.write(self.decode(stacked, self._based_on(base, base_at, start, part)).tobytes())

    def _based_on(self, base: Binary, base_at: int | None, start: int, count: int) -> np.ndarray | None:
        return None if base_at is None else self._numbers(base, base_at + start, count)

    def _numbers(self, file: Binary, at: int, count: int) -> np.ndarray:
        return np.frombuffer(file.read(at, count), f"<u{self.width}")


@cache
def coding(name: str) -> Coding:
    """The coding of a name in CODINGS."""
    return Coding(name[:-1], int(name[-1]))


def entropy_bytes(planes: np.ndarray) -> float:
    """What (planes, numbers) would come to if each byte cost what its frequency in its plane is worth (order-0 entropy)."""
    total = 0.0
    for plane in planes:
        counts = np.bincount(plane, minlength=256)
        share = counts[counts > 0] / len(plane)
        total -= float((share * np.log2(share)).sum()) * len(plane) / 8
    return total


def _bits(x: np.ndarray) -> int:
    return x.dtype.itemsize * 8


def _ordered(x: np.ndarray) -> np.ndarray:
    """Bit patterns of floats to integers that are in the order of their values; -0 comes right before +0."""
    top = x.dtype.type(1 << (_bits(x) - 1))
    negative = x >> x.dtype.type(_bits(x) - 1)
    mask: np.ndarray = (x.dtype.type(0) - negative) | top
    return x ^ mask


def _unordered(x: np.ndarray) -> np.ndarray:
    top = x.dtype.type(1 << (_bits(x) - 1))
    mask: np.ndarray = ((x >> x.dtype.type(_bits(x) - 1)) - x.dtype.type(1)) | top
    return x ^ mask


def _folded(x: np.ndarray) -> np.ndarray:
    """0, -1, 1, -2, ... to 0, 1, 2, 3, ... (modulo 2^bits)."""
    negative = x >> x.dtype.type(_bits(x) - 1)
    folded: np.ndarray = (x << x.dtype.type(1)) ^ (x.dtype.type(0) - negative)
    return folded


def _unfolded(x: np.ndarray) -> np.ndarray:
    one = x.dtype.type(1)
    unfolded: np.ndarray = (x >> one) ^ (x.dtype.type(0) - (x & one))
    return unfolded
