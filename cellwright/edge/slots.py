"""Threads that run models, and a bounded queue before them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from cellwright.edge.request import RequestError

_Answer = TypeVar("_Answer")


class Slots:
    """Used from the event loop's thread only."""

    def __init__(self, workers: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="forecast")
        self._most, self.taken = workers + queue, 0

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

    async def run(self, work: Callable[[], _Answer]) -> _Answer:
        """The result of `work`, from one of the threads."""
        with self.slot():
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let running work end."""
        self._pool.shutdown(wait=True)
