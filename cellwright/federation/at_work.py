"""Which requests this machine works on: a file that the process locks while it waits or runs rounds; the lock ends with the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cellwright.errors import CellwrightError
from cellwright.workspace import Workspace


@contextmanager
def at_work(ws: Workspace, request: str) -> Iterator[None]:
    """Hold the lock of a request; where another process holds it, that one is at work, and this one is not in its way."""
    path = _path(ws, request)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield
        return
    try:
        try:
            yield
        except CellwrightError:  # it ended, if badly; what is interrupted or killed leaves its file
            path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)
    finally:
        lock.release()


def died(ws: Workspace, request: str) -> bool:
    """Whether a process of this machine worked on a request, and is gone. Of one that another machine works on nothing is known."""
    path = _path(ws, request)
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def _path(ws: Workspace, request: str) -> Path:
    return ws.federation / "at-work" / f"{request}.lock"
