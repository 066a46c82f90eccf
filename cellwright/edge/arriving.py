"""A blob on its way: hashed as it arrives, written where a broken download, or a killed process, goes on from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cellwright.bundle.manifest import Descriptor, check_digest
from cellwright.edge.hashing import Hashing
from cellwright.edge.wire import Answer
from cellwright.errors import BundleError, WorkspaceError

Stop = Callable[[int], bool]  # given the bytes that are there: whether to stop receiving now


class Arriving:
    """The bytes of one blob in order, from its beginning: what is there is hashed once, what arrives as it is written.

    The file never has a hole and never more than the blob, so its length is all that a later process needs to know. With no file
    (`partial` None) the bytes are hashed and forgotten.
    """

    def __init__(self, partial: Path | None, described: Descriptor, what: str) -> None:
        self.described, self.what = described, what
        self.size, self.received = 0, 0  # bytes that are there; bytes that came over the network
        self.resumed = 0  # of those that are there, left by an earlier fetch
        self.stored_s = 0.0  # spent in writing
        self._path, self._file = partial, -1
        self._hashing = Hashing(described.size)

    def __enter__(self) -> Arriving:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            except OSError as error:
                raise self._unwritable(error) from error
            self._take_up()
            self.resumed = self.size
        return self

    def __exit__(self, *_: object) -> None:
        self._hashing.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return self.size == self.described.size

    def restart(self) -> None:
        """Forget what is there."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
        self._hashing.restart()
        self.size = self.resumed = 0

    def receive(self, answer: Answer, stop: Stop | None = None) -> None:
        """Take the whole body; what came before it broke off is kept.

        Raises:
            Broken: it broke off.
            BundleError: it brings more than the manifest names; all of it is thrown away.
            WorkspaceError: the disk is full; what was written before is kept.
        """
        room, filled = self._hashing.buffer(), 0
        try:
            while count := answer.into(room[filled:]):
                filled += count
                self._check_room(filled)
                if filled == len(room):
                    filled = 0
                    self._keep(len(room))
                    room = self._hashing.buffer()
                if stop is not None and stop(self.size + filled):
                    return
        finally:
            if filled and self.size + filled <= self.described.size:
                self._keep(filled)

    def add(self, content: bytes | bytearray | memoryview) -> None:
        """Take bytes that lie elsewhere already. Raises as `receive`."""
        self._check_room(len(content))
        left = memoryview(content)
        while left:
            room = self._hashing.buffer()
            count = min(len(room), len(left))
            room[:count], left = left[:count], left[count:]
            self._keep(count)

    def finish(self, target: Path | None) -> None:
        """Move the whole blob to its place; raises BundleError, and throws it away, if its hash is another.

        The file is synchronised before it gets its name, so that a name always stands for bytes that were hashed: they need not be
        read again. Nobody else writes there: the device's lock is held, and the folder is the device's own.
        """
        try:
            check_digest(self._hashing.hexdigest(), self.described.hex, self.what)
        except BundleError:
            self.throw_away()
            raise
        if self._path is None or target is None:
            return
        begun = time.perf_counter()
        try:
            os.fsync(self._file)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._path.replace(target)
        except OSError as error:
            raise self._unwritable(error) from error
        self.stored_s += time.perf_counter() - begun

    def throw_away(self) -> None:
        """Delete what is there."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _check_room(self, more: int) -> None:
        if self.size + more > self.described.size:
            self.throw_away()
            raise BundleError(
                f"{self.what}: more than the {self.described.size} bytes that the manifest names; it was thrown away"
            )

    def _keep(self, count: int) -> None:
        """Write and hash the first `count` bytes of the buffer."""
        room = self._hashing.buffer()
        written = count
        if self._file >= 0:
            begun = time.perf_counter()
            written, failed = _write(self._file, room[:count])
            self.stored_s += time.perf_counter() - begun
            if failed is not None:
                self._count(written)
                raise self._unwritable(failed) from failed
        self._count(written)

    def _count(self, written: int) -> None:
        self._hashing.push(written)
        self.size += written
        self.received += written

    def _take_up(self) -> None:
        """Hash what an earlier attempt left."""
        if os.fstat(self._file).st_size > self.described.size:
            self.restart()
        while True:
            room = self._hashing.buffer()
            count = os.readv(self._file, [room])
            if not count:
                return
            self._hashing.push(count)
            self.size += count

    def _unwritable(self, error: OSError) -> WorkspaceError:
        return WorkspaceError(f"cannot write {self._path} ({error.strerror}); free some space and run again to resume")


def _write(file: int, content: memoryview) -> tuple[int, OSError | None]:
    """How many bytes were written, and why not all of them were."""
    done = 0
    while done < len(content):
        try:
            done += os.write(file, content[done:])
        except OSError as error:
            return done, error
    return done, None
