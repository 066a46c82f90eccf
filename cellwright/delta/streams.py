"""The payload of a patch: named streams one after the other, most of them zstd (RFC 8878), all read at once and in parts.

A patch is rebuilt from several streams side by side (which bytes are copied, which are new, one stream for each byte of the
weights' differences), so each has a decompressor of its own with a small window. How much comes out of one is decided by the
reader, which knows how many bytes it needs: a stream that would give a thousand times as much is never let to.
"""

from __future__ import annotations

import io
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import zstandard

from cellwright.delta.binary import PART_BYTES, Binary
from cellwright.errors import DeltaError

WINDOW_LOG = 23  # 8 MiB: how far back zstd refers, and what a decompressor holds
PLANE_WINDOW_LOG = 17  # noise with a skewed histogram: nothing to refer back to, only its bytes' frequencies count
MOST_STREAMS = 64


def level(target_bytes: int) -> int:
    """zstd's effort: the most for files of which an edge makes a patch in seconds, minutes saved on the largest."""
    return 19 if target_bytes <= 1 << 24 else 9 if target_bytes <= 1 << 27 else 3


class Streams:
    """Streams on their way into files of a folder. Use as a context; afterwards `finished` says what there is."""

    def __init__(self, folder: Path, target_bytes: int) -> None:
        self._folder, self._bytes, self._level = folder, target_bytes, level(target_bytes)
        self._open: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Streams:
        self._stack = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, name: str, content: bytes | memoryview, *, window_log: int = WINDOW_LOG) -> None:
        """Append to a compressed stream."""
        if name not in self._open:
            effort = 1 if window_log == PLANE_WINDOW_LOG and self._level < 19 else self._level  # matches in noise cost, not save
            least = max(10, min(window_log, self._bytes.bit_length()))  # small tables for small files
            chosen = zstandard.ZstdCompressionParameters.from_level(
                effort, source_size=min(self._bytes, 1 << window_log), window_log=least, write_content_size=0
            )
            packer = zstandard.ZstdCompressor(compression_params=chosen)
            self._open[name] = self._stack.enter_context(packer.stream_writer(self._file(name)))
        self._open[name].write(content)

    def write_plain(self, name: str, content: bytes) -> None:
        """Append to a stream that is kept as it is."""
        if name not in self._open:
            self._open[name] = self._file(name)
        self._open[name].write(content)

    def _file(self, name: str) -> IO[bytes]:
        return self._stack.enter_context((self._folder / name).open("wb"))

    @property
    def finished(self) -> list[tuple[str, int]]:
        """(name, bytes) of each, by name."""
        return [(name, (self._folder / name).stat().st_size) for name in sorted(self._open)]

    def append_to(self, out: IO[bytes]) -> None:
        """Write them all, in that order."""
        for name, _ in self.finished:
            with (self._folder / name).open("rb") as part:
                shutil.copyfileobj(part, out, PART_BYTES)


class _Part(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, file: Binary, start: int, count: int) -> None:
        self._file, self.at, self.stop = file, start, start + count

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        count = self.stop - self.at if size < 0 else min(size, self.stop - self.at)
        self.at += count
        return self._file.read(self.at - count, count)


class Sources:
    """The streams of a patch, to be read."""

    def __init__(self, file: Binary, start: int, directory: list[tuple[str, int]]) -> None:
        self._parts: dict[str, _Part] = {}
        self._readers: dict[str, zstandard.ZstdDecompressionReader] = {}
        for name, count in directory:
            self._parts[name] = _Part(file, start, count)
            start += count

    def read(self, name: str, count: int) -> bytes:
        """The next `count` bytes of a compressed stream. Raises DeltaError where it has no as many or is damaged."""
        if count == 0:
            return b""
        if name not in self._readers:
            opener = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
            self._readers[name] = opener.stream_reader(self._part(name), read_size=1 << 16)  # type: ignore[arg-type]
        found = self._decompressed(name, count)
        if len(found) != count:
            raise DeltaError(f"the patch's stream '{name}' ends {count - len(found)} bytes early; make or fetch the patch again")
        return found

    def read_plain(self, name: str, count: int) -> bytes:
        """The next `count` bytes of a stream that is kept as it is. Raises DeltaError where it has no as many."""
        part = self._part(name)
        if count > part.stop - part.at:
            raise DeltaError(f"the patch's stream '{name}' ends early; make or fetch the patch again")
        return part.read(count)

    def check_end(self) -> None:
        """Raises DeltaError where a stream has more than was needed, or was not needed at all."""
        for name, part in self._parts.items():
            more = name in self._readers and self._decompressed(name, 1)
            if more or part.at < part.stop:
                raise DeltaError(f"the patch's stream '{name}' goes on after the file is whole; it is refused")

    def _part(self, name: str) -> _Part:
        if name not in self._parts:
            raise DeltaError(f"the patch has no stream '{name}', which its mode needs; make or fetch the patch again")
        return self._parts[name]

    def _decompressed(self, name: str, count: int) -> bytes:
        try:
            return self._readers[name].read(count)
        except zstandard.ZstdError as error:
            raise DeltaError(f"the patch's stream '{name}' is damaged ({error}); make or fetch the patch again") from error
