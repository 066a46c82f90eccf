"""Wakes long polls when what edges shall hold has changed: by this process at once, by another within `LOOK_S`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping

LOOK_S = 0.25  # how often changes by other processes are looked for, while anybody waits
MOST_POLLS = 2  # of one edge at once: a new one, and one whose connection the edge may have lost

Waiter = asyncio.Future[bool]  # True: something has changed; False: the edge asks by newer polls, this one ends


class Bell:
    """Waiters of one event loop; `ring` may be called from any thread.

    Get a waiter, look, then wait: what changes after the look wakes the waiter.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Waiter, str] = {}  # -> edge; the oldest first
        self._task: asyncio.Task[None] | None = None

    def waiter(self, edge: str) -> Waiter:
        """Somebody who will be woken; `leave` in the end. Ends the oldest of an edge that has `MOST_POLLS` already."""
        found: Waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            own = [waiter for waiter, name in self._waiting.items() if name == edge]
            for old in own[: len(own) + 1 - MOST_POLLS]:
                del self._waiting[old]
                _wake(old, False)
            self._waiting[found] = edge
        return found

    def leave(self, waiter: Waiter) -> None:
        """Wake a waiter no more."""
        with self._lock:
            self._waiting.pop(waiter, None)

    def ring(self, edges: Collection[str] | None = None) -> None:
        """Wake all that wait for these edges' states (None: for any); each looks for itself what has changed."""
        with self._lock:
            woken = [waiter for waiter, edge in self._waiting.items() if edges is None or edge in edges]
            for waiter in woken:
                del self._waiting[waiter]
        for waiter in woken:
            waiter.get_loop().call_soon_threadsafe(_wake, waiter, True)

    def release(self) -> None:
        """End all that wait, unchanged: the server stops, and must not keep them waiting."""
        with self._lock:
            waiting, self._waiting = tuple(self._waiting), {}
        for waiter in waiting:
            waiter.get_loop().call_soon_threadsafe(_wake, waiter, False)

    async def wait(self, waiter: Waiter, seconds: float, revisions: Callable[[], Mapping[str, int]]) -> bool:
        """Return when rung, or after `seconds`; False: the edge has newer polls. `revisions`: of each edge's state, as kept now."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(revisions))
        await asyncio.wait([waiter], timeout=seconds)
        return not waiter.done() or waiter.result()

    async def _look(self, revisions: Callable[[], Mapping[str, int]]) -> None:
        """While anybody waits: ring when another process has changed something."""
        before: Mapping[str, int] | None = None
        while self._waiting:
            now = await asyncio.to_thread(revisions)
            if before is None:
                self.ring()
            elif changed := {edge for edge in before.keys() | now.keys() if before.get(edge) != now.get(edge)}:
                self.ring(changed)
            before = now
            await asyncio.sleep(LOOK_S)


def _wake(waiter: Waiter, changed: bool) -> None:
    if not waiter.done():
        waiter.set_result(changed)
