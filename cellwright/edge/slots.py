"""Places for forecasts: so many may run or wait, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from cellwright.edge.request import RequestError


class Slots:
    """A bounded number of places, and the threads that run slow models. Used from the event loop's thread only."""

    def __init__(self, workers: int, queue: int) -> None:
        self.workers, self.pool = workers, ThreadPoolExecutor(workers, thread_name_prefix="forecast")
        self._most, self.taken = workers + queue, 0

    @property
    def busy(self) -> bool:
        """Whether half of the places are taken: work that can be left out is."""
        return 2 * self.taken > self._most

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Take a place, or raise RequestError (429)."""
        if self.taken >= self._most:
            raise RequestError(429, f"{self.taken} forecasts are running or waiting already; try again in a second")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def close(self) -> None:
        """Let running work end."""
        self.pool.shutdown(wait=True)
