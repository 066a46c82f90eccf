"""Child processes: a step in a process of its own, which never outlives the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cellwright import interruption
from cellwright.errors import CellwrightError
from cellwright.workspace import Workspace

PARENT = "CELLWRIGHT_PARENT"  # process id of the one that must outlive us
ANCESTOR = "CELLWRIGHT_ANCESTOR"  # the same, of one that is not our direct parent
_LOOK_S = 0.5
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def die_with_parent(parent: int) -> None:
    """End this process soon after `parent` has ended, however it ended.

    A thread looks twice a second. (The kernel's own parent-death signal fires when the *thread* that started us ends, which in a
    thread pool is long before its process does.)
    """

    _end_when(lambda: os.getppid() != parent)


def obey_parent() -> None:
    """`die_with_parent`, if the one that started this process, or one before it, asked for it."""
    if parent := os.environ.pop(PARENT, None):
        die_with_parent(int(parent))
    if ancestor := os.environ.pop(ANCESTOR, None):
        _end_when(lambda: not Path("/proc", ancestor).exists())


def _end_when(over: Callable[[], bool]) -> None:
    def watch() -> None:
        while not over():
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def keep_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the kernel after each step.

    Tensors of a batch are freed and asked for again thousands of times; the page faults of that took 40 % of the CPU time of a
    small LSTM's training. Elsewhere than on glibc this changes nothing.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def run_step(ws: Workspace, step: str, *arguments: str, on_line: Callable[[str], None]) -> None:
    """Run `cellwright step <step>` of a run in its own process; its lines go to `on_line`.

    Raises:
        CellwrightError: the step failed; the message is its own.
        KeyboardInterrupt: it was stopped by the Ctrl-C that is meant for this process too.
    """
    command = [sys.executable, "-m", "flows.cli", "step", step, "--run", ws.run, *arguments]
    environment = {**os.environ, "CELLWRIGHT_ROOT": str(ws.root), PARENT: str(os.getpid())}
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=ws.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if not line.startswith("error:"):
                    on_line(line.rstrip())
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        interruption.look()  # Ctrl-C reaches all of a terminal's processes: it may have ended that one before us
        raise CellwrightError(f"step {step} failed ({_how(process.returncode)}): {_own_error(lines)}")


def _own_error(lines: list[str]) -> str:
    start = next((i for i, line in enumerate(lines) if line.startswith("error:")), None)
    said = lines[-15:] if start is None else lines[start:]
    return "\n".join(said).removeprefix("error:").strip() or "it said nothing"


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
