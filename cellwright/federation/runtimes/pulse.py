"""One coordinator a job: a lock in the job's folder that its process holds while it works, and which ends with it, however it ends.

Flower misses a ServerApp whose process was killed after a minute; whoever submitted the job sees it by this lock within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cellwright.errors import FederationError

LOCK = "coordinator.lock"
_WAIT_S = 30.0  # for a forerunner that is ending
_GRACE_S = 15.0  # from the end of the work until Flower says how the run ended


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
    try:
        yield
    finally:
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

    def __init__(self, folder: Path, *, grace_s: float = _GRACE_S) -> None:
        self._folder, self._grace_s = folder, grace_s
        self._lived, self._quiet_since = False, 0.0

    def look(self) -> None:
        """To be asked every now and then while the run goes on.

        Raises:
            FederationError: the coordinator worked, and its process is gone.
        """
        if held(self._folder):
            self._lived, self._quiet_since = True, 0.0
            return
        if not self._lived:
            return
        self._quiet_since = self._quiet_since or time.monotonic()
        if time.monotonic() - self._quiet_since > self._grace_s:
            raise FederationError(
                "the coordinator's process has ended without saying why (was it killed?); what was done is kept: the same command "
                "goes on from the round it was in"
            )
