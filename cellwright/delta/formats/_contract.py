"""What a reader of a format gives: a function `tensors(file)`, which raises Unreadable on what it does not understand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cellwright.delta.binary import Binary

MOST_TENSORS = 1 << 17


class Unreadable(Exception):
    """The file is in another format, or not as the format says. It is then compared as plain bytes."""


@dataclass(frozen=True)
class Tensor:
    """`count` bytes at `start`: numbers of `width` bytes, floats or integers."""

    name: str
    floating: bool
    width: int
    start: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count


def checked(file: Binary, found: Iterable[Tensor]) -> list[Tensor]:
    """In order of place. Raises Unreadable where one lies outside of the file or in another, or there are far too many."""
    some = []
    for tensor in found:
        some.append(tensor)
        if len(some) > MOST_TENSORS:
            raise Unreadable
    some.sort(key=lambda t: (t.start, t.count))
    at = 0
    for tensor in some:
        if tensor.start < at or tensor.stop > file.bytes or tensor.count % tensor.width:
            raise Unreadable
        at = tensor.stop
    return some
