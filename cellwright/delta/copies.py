"""What two files have in common, wherever it lies: chunks of one that are found in the other, grown to where they begin to differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cellwright.delta.binary import Binary
from cellwright.delta.chunking import average_bytes, chunks

_COMPARED_BYTES = 1 << 16


@dataclass(frozen=True)
class Copy:
    """`count` bytes at `start` of the target are those at `base` of the base."""

    start: int
    base: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count


def copies(base: Binary, target: Binary) -> list[Copy]:
    """What of the target lies in the base, in the target's order, without overlaps."""
    return list(_grown(base, target, list(_joined(_found(base, target)))))


def _found(base: Binary, target: Binary) -> Iterator[Copy]:
    """Chunks of the target that the base has; of several places the one that goes on from the chunk before."""
    average = average_bytes(target.bytes)
    places: dict[bytes, int] = {}
    at: dict[int, bytes] = {}
    for start, _, digest in chunks(base, average):
        places.setdefault(digest, start)
        at[start] = digest
    after = -1
    for start, end, digest in chunks(target, average):
        if digest in places:
            place = after if at.get(after) == digest else places[digest]
            after = place + end - start
            yield Copy(start, place, end - start)


def _joined(found: Iterator[Copy]) -> Iterator[Copy]:
    """Neighbours in both files as one."""
    last: Copy | None = None
    for copy in found:
        if last and last.stop == copy.start and last.base + last.count == copy.base:
            last = Copy(last.start, last.base, last.count + copy.count)
            continue
        if last:
            yield last
        last = copy
    if last:
        yield last


def _grown(base: Binary, target: Binary, found: list[Copy]) -> Iterator[Copy]:
    """Each as far into what surrounds it as the files agree."""
    free = 0
    for number, copy in enumerate(found):
        limit = found[number + 1].start if number + 1 < len(found) else target.bytes
        before = _agree_before(base, copy.base, target, copy.start, copy.start - free)
        after = _agree_after(base, copy.base + copy.count, target, copy.stop, limit - copy.stop)
        free = copy.stop + after
        yield Copy(copy.start - before, copy.base - before, before + copy.count + after)


def _agree_after(a: Binary, a_at: int, b: Binary, b_at: int, most: int) -> int:
    """How many bytes from there on are the same in both."""
    most, count = min(most, a.bytes - a_at), 0
    while count < most:
        step = min(_COMPARED_BYTES, most - count)
        apart = np.flatnonzero(a.array(a_at + count, step) != b.array(b_at + count, step))
        if len(apart):
            return count + int(apart[0])
        count += step
    return count


def _agree_before(a: Binary, a_at: int, b: Binary, b_at: int, most: int) -> int:
    """How many bytes up to there are the same in both."""
    most, count = min(most, a_at), 0
    while count < most:
        step = min(_COMPARED_BYTES, most - count)
        apart = np.flatnonzero(a.array(a_at - count - step, step) != b.array(b_at - count - step, step))
        if len(apart):
            return count + step - 1 - int(apart[-1])
        count += step
    return count
