"""The network's time: it runs with the system's, can be put forward, and can stand still between two steps."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime


class Clock:
    """Seconds since 1970. `advance` moves it and wakes who waits; `running=False`: only `advance` moves it."""

    def __init__(self, *, running: bool = True, start_s: float | None = None) -> None:
        self.running = running
        self._base_s = time.time() if start_s is None else start_s
        self._since = time.monotonic()
        self._lock = threading.Lock()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def now_s(self) -> float:
        """The present moment."""
        with self._lock:
            return self._base_s + (time.monotonic() - self._since if self.running else 0.0)

    def advance(self, seconds: float) -> float:
        """Go forward; returns the new time. From any thread."""
        if seconds < 0:
            raise ValueError("time goes forward only")
        with self._lock:
            self._base_s += seconds
            sleepers = tuple(self._sleepers)
        for loop, woken in sleepers:
            loop.call_soon_threadsafe(woken.set)
        return self.now_s()

    async def sleep_until(self, at_s: float) -> None:
        """Return once `now_s()` is `at_s` or later."""
        woken = asyncio.Event()
        sleeper = (asyncio.get_running_loop(), woken)
        with self._lock:
            self._sleepers.add(sleeper)
        try:
            while (left_s := at_s - self.now_s()) > 0:
                woken.clear()
                try:
                    await asyncio.wait_for(woken.wait(), left_s if self.running else None)
                except TimeoutError:
                    continue
        finally:
            with self._lock:
                self._sleepers.discard(sleeper)


def moment(at_s: float) -> datetime:
    """A date and time in UTC."""
    return datetime.fromtimestamp(at_s, UTC)
