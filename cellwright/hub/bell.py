"""Wakes long polls when what edges shall hold has changed: by this process at once, by another within `LOOK_S`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

LOOK_S = 0.25  # how often changes by other processes are looked for, while anybody waits

Waiter = asyncio.Future[None]


class Bell:
    """Waiters of one event loop; `ring` may be called from any thread.

    Get a waiter, look, then wait: what changes after the look wakes the waiter.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[Waiter] = set()
        self._task: asyncio.Task[None] | None = None

    def waiter(self) -> Waiter:
        """Somebody who will be woken; `leave` in the end."""
        found: Waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.add(found)
        return found

    def leave(self, waiter: Waiter) -> None:
        """Wake a waiter no more."""
        with self._lock:
            self._waiting.discard(waiter)

    def ring(self) -> None:
        """Wake all that wait; each looks for itself whether it is concerned."""
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    async def wait(self, waiter: Waiter, seconds: float, stamp: Callable[[], int]) -> None:
        """Return when rung, or after `seconds`. `stamp`: a number that grows with every change by whomever, cheap to read."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(stamp))
        await asyncio.wait([waiter], timeout=seconds)

    async def _look(self, stamp: Callable[[], int]) -> None:
        """While anybody waits: ring when another process has changed something."""
        before = -1
        while self._waiting:
            now = await asyncio.to_thread(stamp)
            if now != before:
                before = now
                self.ring()
            await asyncio.sleep(LOOK_S)


def _wake(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_result(None)
