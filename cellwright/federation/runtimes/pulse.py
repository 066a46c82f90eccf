"""One coordinator a job: a lock in the job's folder that its process holds while it works, and which ends with it, however it ends.

Flower misses a ServerApp whose process was killed after a minute. Whoever submitted the job sees it at once: the lock is free, and the
mark that a coordinator leaves when it ends by itself, well or not, is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cellwright.errors import FederationError

LOCK, ENDED = "coordinator.lock", "coordinator.ended"
_WAIT_S = 30.0  # for a forerunner that is ending


@contextmanager
def alone(folder: Path, *, wait_s: float = _WAIT_S) -> Iterator[None]:
    """Work on the job in a folder; nobody else does meanwhile.

    Raises:
        FederationError: another process works on it, and did not end in time.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise FederationError(
            f"another coordinator works on the job in {folder}; wait until it has ended, or stop the process that holds {lock.lock_file}"
        ) from None
    mark = folder / ENDED
    mark.unlink(missing_ok=True)
    try:
        yield
    finally:
        mark.touch()
        lock.release()


def held(folder: Path) -> bool:
    """Whether a coordinator works on the job in a folder now."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


class Pulse:
    """Watches over the coordinator of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lived = folder, False

    def look(self) -> None:
        """To be asked every now and then while the run goes on.

        Raises:
            FederationError: the coordinator worked, and its process was killed.
        """
        if held(self._folder):
            self._lived = True
        elif self._lived and not (self._folder / ENDED).is_file():
            raise FederationError(
                "the coordinator's process has ended without saying why (was it killed?); what was done is kept: the same command "
                "goes on from the round it was in"
            )
