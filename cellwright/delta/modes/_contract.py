"""What every mode keeps to: two files in, streams out; the first file and the streams in, the second file's bytes out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import IO, ClassVar

from cellwright.delta.binary import Binary, FileId
from cellwright.delta.streams import Sources, Streams
from cellwright.errors import DeltaError

__all__ = ["Binary", "DeltaError", "Mode", "Sink", "Sources", "Streams"]


class Sink:
    """Where the rebuilt bytes go: counted and hashed as they come, and never more than the target has."""

    def __init__(self, out: IO[bytes], expected: FileId) -> None:
        self._out, self._expected = out, expected
        self._hash = hashlib.sha256()
        self.written = 0

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return self._expected.bytes - self.written

    def write(self, content: bytes | memoryview) -> None:
        """Raises DeltaError where that is more than the target has; nothing of it is written."""
        if len(content) > self.left:
            raise DeltaError(f"the patch makes more than the {self._expected.bytes} bytes that it announces; it is refused")
        self._out.write(content)
        self._hash.update(content)
        self.written += len(content)

    def check(self) -> None:
        """Raises DeltaError where the bytes are not the target's."""
        if self.left:
            raise DeltaError(f"the patch makes {self.written} of the {self._expected.bytes} bytes that it announces")
        if self._hash.hexdigest() != self._expected.sha256:
            raise DeltaError(
                f"the rebuilt file has SHA-256 {self._hash.hexdigest()}, {self._expected.sha256} was announced; "
                "fetch the whole file instead"
            )


class Mode(ABC):
    """A file of the family holds one, named `Way`. It keeps no state between calls."""

    title: ClassVar[str]
    needs_base: ClassVar[bool] = True  # False: rebuilds from the patch alone

    @abstractmethod
    def difference(self, base: Binary, target: Binary, into: Streams) -> None:
        """Write what is needed, beside `base`, to make `target`; the same files give the same bytes."""

    @abstractmethod
    def rebuild(self, base: Binary, streams: Sources, sink: Sink) -> None:
        """Write the target to `sink`, until nothing of it is left, in memory that does not grow with the files.

        Raises:
            DeltaError: the streams are not what `difference` makes.
        """
