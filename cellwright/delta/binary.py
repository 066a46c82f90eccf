"""A file that is read at any place, in parts that are asked for: what is not there is an error, never a short answer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cellwright.errors import DeltaError

PART_BYTES = 1 << 20  # read, hashed and written at a time


class FileId(BaseModel):
    """Which bytes: their SHA-256 and how many they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Binary:
    """A file opened for reading. `with Binary(path) as file: file.read(start, count)`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Binary:
        try:
            self._file = self.path.open("rb")
        except OSError as error:
            raise DeltaError(f"cannot read {self.path} ({error.strerror}); name a file that is there") from error
        self.bytes = os.fstat(self._file.fileno()).st_size
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from `start`. Raises DeltaError when they are not all there."""
        if start < 0 or count < 0 or start + count > self.bytes:
            raise DeltaError(f"{self.path}: bytes {start} to {start + count} were asked for, the file has {self.bytes}")
        parts = []
        while count and (part := os.pread(self._file.fileno(), count, start)):
            parts.append(part)
            start, count = start + len(part), count - len(part)
        if count:
            raise DeltaError(f"{self.path} became shorter while it was read; leave it alone and run again")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def array(self, start: int, count: int) -> np.ndarray:
        """The same as uint8, (count,), read-only."""
        return np.frombuffer(self.read(start, count), np.uint8)

    def parts(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """From `start` to `stop` (the end) in parts of at most 1 MiB."""
        stop = self.bytes if stop is None else stop
        for at in range(start, stop, PART_BYTES):
            yield self.read(at, min(PART_BYTES, stop - at))

    def identity(self) -> FileId:
        """Its hash and size."""
        digest = hashlib.sha256()
        for part in self.parts():
            digest.update(part)
        return FileId(sha256=digest.hexdigest(), bytes=self.bytes)
