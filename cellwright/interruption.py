"""Ctrl-C that cannot be lost: for the length of a command, what asked it to stop is remembered until it has stopped.

Python answers SIGINT with a KeyboardInterrupt wherever the main thread happens to be. There it can vanish: in a `__del__` or a
callback of a weak reference, whose exceptions Python ignores, or in a library's `except BaseException` (Prefect drops one that comes
while a flow is being closed). So:

    heed     a handler that remembers and raises; an exception that Python ignored is raised again
    look     at the edges of steps, in the main thread: raises KeyboardInterrupt if one was lost
    asked    for what waits or computes in other threads, which no signal reaches
    deaf     around the start of processes that are not to hear Ctrl-C: their parent ends them

Where SIGINT is ignored from the start, as by a script's `cellwright run &`, it stays so: that is how a shell keeps Ctrl-C from what it
runs in the background. SIGTERM stops it there.

A second SIGINT, a second or more after the first, ends the process at once, as a kill does: what it was cleaning up stays as it is.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOPPED = 130  # exit code
SAID = "stopped; the same command resumes"
_ECHO_S = 1.0  # one Ctrl-C may come twice: from the terminal, and from a program between it and us that passes it on
_AGAIN_S = 0.02  # enough to leave the callback that swallowed it; if it was not, it comes again


@dataclass
class _Asked:
    """When a stop was asked for first (seconds of the monotonic clock), and whether the next signal only repeats it."""

    at_s: float | None = None
    repeated: bool = False


_first = _Asked()


def heed() -> None:
    """From now on to the end of the process, SIGINT stops it, unless it is ignored already. In the main thread only."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    signal.signal(signal.SIGINT, _interrupt)
    before = sys.unraisablehook

    def unraisable(ignored: sys.UnraisableHookArgs) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            _thread.start_new_thread(_repeat, ())  # no `Thread`: its locks may be held by what was interrupted
        else:
            before(ignored)

    sys.unraisablehook = unraisable


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _first.at_s is not None


def look() -> None:
    """Raise KeyboardInterrupt if one was asked for and nobody is about to obey it; in the main thread alone, elsewhere nothing.

    Cleaning up after a KeyboardInterrupt may pass here: that is not disturbed.
    """
    if asked() and threading.current_thread() is threading.main_thread() and not _obeyed():
        raise KeyboardInterrupt


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that this thread starts inside the block never hear SIGINT, from their very first instruction."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # inherited; what comes meanwhile is kept for afterwards
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    now_s = time.monotonic()
    if _first.at_s is None:
        _first.at_s = now_s
    elif _first.repeated:
        _first.repeated = False
    elif now_s - _first.at_s < _ECHO_S:
        return
    else:
        os.write(2, f"{SAID}\n".encode())
        os._exit(STOPPED)
    raise KeyboardInterrupt


def _repeat() -> None:
    time.sleep(_AGAIN_S)
    _first.repeated = True
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes it, whatever it waits for


def _obeyed() -> bool:
    """Whether this code is run because of a KeyboardInterrupt: in `finally`, `except` or `__exit__`."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
