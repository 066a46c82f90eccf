"""Stop what trains in other threads: they see neither Ctrl-C nor the Cancel of a flow."""

from __future__ import annotations

import threading

from cellwright import interruption

_asked = threading.Event()


class Stopped(BaseException):
    """The training was asked to stop; its last epoch's checkpoint stays. No failure, so nothing catches it as one."""


def ask() -> None:
    """All trainings of this process stop at their next batch."""
    _asked.set()


def forget() -> None:
    """Trainings that start from now on go on."""
    _asked.clear()


def look() -> None:
    """Raise `Stopped` if a stop was asked for; in the main thread, KeyboardInterrupt if it was Ctrl-C that got lost."""
    interruption.look()
    if _asked.is_set() or interruption.asked():
        raise Stopped
