"""What every task shares: where it runs, how it speaks, and which errors are worth another try.

No task caches its result in Prefect: a step finds in the run's own folder what is done already, also after a kill or a Retry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger

from cellwright import interruption
from cellwright.errors import CellwrightError
from cellwright.params import Params
from cellwright.runs import params_of
from cellwright.workspace import Workspace


def say(message: str) -> None:
    """One line for the person who watches: the log of the run in the UI, and the terminal. Ctrl-C that was lost is obeyed here."""
    interruption.look()
    get_run_logger().info(message, extra={"cellwright": True})


def opened(root: str, run: str) -> tuple[Params, Workspace]:
    """Parameters and workspace of a run, from what crosses a task's border: two strings. A step that has not begun is not, after Ctrl-C."""
    interruption.look()
    ws = Workspace(Path(root), run)
    return params_of(ws), ws


async def transient(task: Any, task_run: Any, state: Any) -> bool:
    """Whether a failure may pass by itself. Our own errors state a cause that another try does not remove."""
    try:
        await state.result()
    except CellwrightError:
        return False
    except Exception:
        return True
    return False
