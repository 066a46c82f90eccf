"""What the flows of federations do around a run: a finished one is only named, and no two processes work on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cellwright import runs
from cellwright.files import write_json
from cellwright.workspace import Workspace
from tasks._run import say


def is_finished(ws: Workspace) -> bool:
    """Whether the run has come to its end before, which is then said."""
    if not runs.finished(ws):
        return False
    say(f"run      {ws.run} is finished; --fresh starts another")
    return True


@contextmanager
def working(ws: Workspace) -> Iterator[None]:
    """Keep other processes out of the run while this one works on it.

    Raises:
        WorkspaceError: another process holds it.
    """
    with runs.locked(ws):
        say(f"run      {ws.run}")
        yield


def finish(ws: Workspace) -> None:
    """The run has come to its end."""
    write_json(ws.run_folder / "finished.json", {"run": ws.run})
