"""Content-defined chunks: cuts where the content says so, so that what moved is found again where it moved to.

The rolling hash is the *gear* of Xia et al., "FastCDC: a fast and efficient content-defined chunking approach for data
deduplication" (USENIX ATC 2016): h(i) = 2 h(i-1) + G[byte i] mod 2^32, which depends on the last 32 bytes. Differs from the paper: one
threshold on the hash instead of two masks; and the recurrence is unrolled into five shifted additions of whole arrays (1, 2, 4, 8, 16
bytes back), so that numpy hashes a block at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from cellwright.delta.binary import Binary

_BLOCK_BYTES = 1 << 16  # hash and table fit the processor's cache
_REACH = 31  # bytes before a byte that its hash depends on
GEAR = np.frombuffer(b"".join(hashlib.sha256(b"gear %d" % n).digest()[:4] for n in range(256)), "<u4").astype(np.uint32)


def average_bytes(target_bytes: int) -> int:
    """The aimed size of a chunk: about 16,000 a file, 1 KiB at least."""
    return 1 << max(10, target_bytes.bit_length() - 14)


def hashes(content: np.ndarray) -> np.ndarray:
    """The gear hash at every byte; content: (bytes,) uint8. The first 31 depend on fewer bytes than the others."""
    found: np.ndarray = GEAR.take(content)
    for back in (1, 2, 4, 8, 16):
        found[back:] += found[:-back] << np.uint32(back)
    return found


def ends(file: Binary, average: int) -> Iterator[int]:
    """Where chunks end, in order; the last is the end of the file. Chunks have a quarter to four times the average."""
    least, most = average // 4, average * 4
    threshold = np.uint32((1 << 32) // average)
    start = 0
    for block in range(0, file.bytes, _BLOCK_BYTES):
        lead = min(_REACH, block)
        stop = min(block + _BLOCK_BYTES, file.bytes)
        content = file.array(block - lead, stop - block + lead)
        places = np.flatnonzero(hashes(content)[lead:] < threshold) + (block + 1)
        while (end := _next(places, start, least, most)) <= stop:
            yield end
            start = end
    if start < file.bytes:
        yield file.bytes


def _next(places: np.ndarray, start: int, least: int, most: int) -> int:
    """The first of `places` that a chunk from `start` may end at; where there is none, the farthest end it may have."""
    at = int(np.searchsorted(places, start + least))
    return min(int(places[at]), start + most) if at < len(places) else start + most


def chunks(file: Binary, average: int) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, SHA-256) of every chunk."""
    start = 0
    for end in ends(file, average):
        yield start, end, hashlib.sha256(file.read(start, end - start)).digest()
        start = end
