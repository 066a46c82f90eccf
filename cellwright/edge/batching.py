"""Runs of a model, several requests at once where they meet.

Requests that arrive in the same turn of the event loop, or while a model is running, share its next run; none waits for company that
is not there, and where none was met of late a request does not even wait for its turn to end, save now and then to look for some.
A batch grows no larger than what runs within the latency budget, judged by the runs before it. A model whose run takes less
than handing it to a thread costs runs where it is; a slower one runs in a thread, beside other requests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import numpy as np

from cellwright.edge.predictor import Predictor
from cellwright.edge.request import Asked

_INLINE_S = 0.5e-3  # a run expected to be shorter holds up the event loop less than a change of threads does
_LOOK_EVERY = (
    7  # where requests come alone, each seventh waits to see whether they still do (a prime: no client is always the one)
)
_ALONE = 0.5  # others in a run, on average, below which requests are held to come alone
_MEMORY = 0.9  # of the running mean of a row's time
_Run = Callable[[Asked], np.ndarray]


@dataclass(frozen=True)
class Ran:
    """A model's output for one request, and what it cost."""

    forecast: np.ndarray  # (batch, horizon, outputs, targets, quantiles), raw units
    cpu_s: float  # of the thread that ran it, this request's share by rows


@dataclass
class _Waiting:
    run: _Run
    asked: Asked
    ran: asyncio.Future[Ran]

    @property
    def rows(self) -> int:
        return len(self.asked.history)


class Batches:
    """The lines before all models. Used from the event loop's thread only."""

    def __init__(self, pool: ThreadPoolExecutor, workers: int, budget_s: float) -> None:
        self._pool, self._workers, self._budget_s = pool, workers, budget_s
        self._lines: dict[int, _Line] = {}  # by the model's identity; gone with it

    async def run(self, predictor: Predictor, asked: Asked) -> Ran:
        """The model's output for one request; what the model raises is raised here."""
        line = self._lines.get(id(predictor))
        if line is None:
            line = self._lines[id(predictor)] = _Line(self._pool, self._workers, self._budget_s, predictor.run_s)
            finalize(predictor, self._lines.pop, id(predictor), None)
        return line.at_once(predictor.run, asked) or await line.join(predictor.run, asked)


class _Line:
    """Requests that wait for one model."""

    def __init__(self, pool: ThreadPoolExecutor, workers: int, budget_s: float, run_s: float) -> None:
        """`run_s`: CPU time of one row when the model was warmed up."""
        self._pool, self._workers, self._budget_s = pool, workers, budget_s
        self._row_s = self._alone_s = run_s
        self._waiting: deque[_Waiting] = deque()
        self._running, self._called = 0, False
        self._company, self._joined = 1.0, 0  # others in a run, a running mean; requests so far

    def at_once(self, run: _Run, asked: Asked) -> Ran | None:
        """Run it here and now, if no company is expected and it takes less than a change of threads; None: it must stand in line."""
        self._joined += 1
        if self._company >= _ALONE or not self._joined % _LOOK_EVERY or self._waiting or self._called or self._running:
            return None
        rows = len(asked.history)
        if self._row_s * rows >= _INLINE_S or self._alone_s >= _INLINE_S:
            return None
        cpu_s = time.thread_time()
        forecast = run(asked)
        cpu_s = time.thread_time() - cpu_s
        self._took(cpu_s, rows, alone=True)
        return Ran(forecast, cpu_s)

    def join(self, run: _Run, asked: Asked) -> asyncio.Future[Ran]:
        """Stand in line; what the model says comes when it is this one's turn."""
        loop = asyncio.get_running_loop()
        one = _Waiting(run, asked, loop.create_future())
        self._waiting.append(one)
        self._call(loop)
        return one.ran

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start at the end of this turn, so that all who arrive in it are there."""
        if not self._called and self._running < self._workers:
            self._called = True
            loop.call_soon(self._start, loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._called = False
        self._company = (self._company + max(0, len(self._waiting) - 1)) / 2
        self._run(loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._next()
        if not batch:
            return
        rows = sum(one.rows for one in batch)
        if self._row_s * rows < _INLINE_S and self._alone_s < _INLINE_S:
            self._done(batch, *_metered(batch))
        else:
            self._running += 1
            running = loop.run_in_executor(self._pool, _metered, batch)
            running.add_done_callback(lambda found: self._returned(loop, batch, found))
        if self._waiting:
            self._call(loop)

    def _next(self) -> list[_Waiting]:
        """Those first in line, as many rows as fit the budget; at least one, and none whose client has gone."""
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting and (not batch or (rows + self._waiting[0].rows) * self._row_s <= self._budget_s):
            one = self._waiting.popleft()
            if not one.ran.done():
                batch.append(one)
                rows += one.rows
        return batch

    def _returned(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], found: asyncio.Future[Any]) -> None:
        self._running -= 1
        self._done(batch, *found.result())
        if self._waiting:
            self._call(loop)

    def _done(self, batch: list[_Waiting], outputs: list[np.ndarray | Exception], cpu_s: float) -> None:
        rows = sum(one.rows for one in batch)
        self._took(cpu_s, rows, alone=len(batch) == 1)
        for one, output in zip(batch, outputs, strict=True):
            if one.ran.done():
                continue  # the client has gone
            if isinstance(output, Exception):
                one.ran.set_exception(output)
            else:
                one.ran.set_result(Ran(output, cpu_s * one.rows / rows))

    def _took(self, cpu_s: float, rows: int, *, alone: bool) -> None:
        self._row_s = _MEMORY * self._row_s + (1 - _MEMORY) * cpu_s / rows
        if alone:
            self._alone_s = _MEMORY * self._alone_s + (1 - _MEMORY) * cpu_s


def _metered(batch: list[_Waiting]) -> tuple[list[np.ndarray | Exception], float]:
    """Each request's output, or what went wrong with it; CPU seconds, which other work on the machine does not lengthen."""
    cpu = time.thread_time()
    outputs = _outputs(batch)
    return outputs, time.thread_time() - cpu


def _outputs(batch: list[_Waiting]) -> list[np.ndarray | Exception]:
    """Together; where that fails each alone, so that no request fails for another's sake."""
    try:
        return [*_together(batch[0].run, [one.asked for one in batch])]
    except Exception as error:  # handed to whoever waits: onnxruntime raises classes of its own, one a status code
        return [error] if len(batch) == 1 else [output for one in batch for output in _outputs([one])]


def _together(run: _Run, asked: list[Asked]) -> list[np.ndarray]:
    if len(asked) == 1:
        return [run(asked[0])]
    whole = Asked(
        history=np.concatenate([a.history for a in asked]),
        known=np.concatenate([a.known for a in asked]),
        site=np.concatenate([a.site for a in asked]),
        sites=(),
        first_ms=asked[0].first_ms,
    )
    return np.split(run(whole), np.cumsum([len(a.history) for a in asked])[:-1])
