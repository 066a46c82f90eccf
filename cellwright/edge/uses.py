"""Who uses what: transfers on their way, when a version was last asked for, and how often (popularity)."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_HALF_LIFE_S = 3_600.0  # a request counts half after an hour


@dataclass(frozen=True, order=True)
class Key:
    """One version of a tenant's model."""

    tenant: str
    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.model} {self.version}"


@dataclass
class _Use:
    running: int = 0
    last_s: float = float("-inf")
    asked: int = 0  # since it was last reported
    score: float = 0.0  # decayed count, as of `last_s`


class Uses:
    """Uses of versions. Safe to use from several threads."""

    def __init__(self, half_life_s: float = _HALF_LIFE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._half_life_s, self._clock = half_life_s, clock
        self._uses: dict[Key, _Use] = defaultdict(_Use)
        self._lock = threading.Lock()

    def count(self, key: Key, times: int = 1) -> None:
        """A version was asked for."""
        with self._lock:
            use, now_s = self._uses[key], self._clock()
            use.score = self._decayed(use, now_s) + times
            use.asked += times
            use.last_s = now_s

    @contextmanager
    def running(self, key: Key) -> Iterator[None]:
        """A file of a version is being sent while the block runs."""
        with self._lock:
            self._uses[key].running += 1
        try:
            yield
        finally:
            with self._lock:
                self._uses[key].running -= 1
                self._uses[key].last_s = self._clock()

    def idle_s(self, key: Key) -> float:
        """How long nobody has used a version; 0 while somebody does."""
        with self._lock:
            use = self._uses.get(key)
            if use is None:
                return float("inf")
            return 0.0 if use.running else self._clock() - use.last_s

    def popularity(self, key: Key) -> float:
        """Requests so far, each counting half as much after every half-life."""
        with self._lock:
            use = self._uses.get(key)
            return 0.0 if use is None else self._decayed(use, self._clock())

    def take_counts(self) -> dict[Key, int]:
        """How often each was asked for since this was last called."""
        with self._lock:
            counts = {key: use.asked for key, use in self._uses.items() if use.asked}
            for key in counts:
                self._uses[key].asked = 0
            return counts

    def forget(self, key: Key) -> None:
        """The version is gone; its popularity is kept, as it may come back."""
        with self._lock:
            use = self._uses.get(key)
            if use and not use.running and self._decayed(use, self._clock()) < 0.01:
                del self._uses[key]

    def _decayed(self, use: _Use, now_s: float) -> float:
        return use.score * 0.5 ** ((now_s - use.last_s) / self._half_life_s) if use.score else 0.0
