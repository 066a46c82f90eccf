"""Worker processes that train one candidate each at a time, kept between candidates so that torch is imported once."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cellwright import interruption
from cellwright.errors import TrainingError
from cellwright.params import Params, check
from cellwright.processes import die_with_parent, keep_memory
from cellwright.results import Trained
from cellwright.training.halving import Rung
from cellwright.training.stopping import Stopped
from cellwright.workspace import Workspace

_LOOK_S = 0.2
T = TypeVar("T")


class WorkerDied(TrainingError):
    """The process that trained a candidate was killed (out of memory, or by hand)."""


class Workers:
    """`count` processes of `threads` threads each. A process that dies takes only its own candidate with it, and is replaced.

    `ready`: they start at once and import what they need while other things are done; else with their first candidate.
    """

    def __init__(self, count: int, threads: int, *, ready: bool = True) -> None:
        self.count, self.threads, self.ready = count, threads, ready
        self._stopped = False
        self._all: list[ProcessPoolExecutor] = []
        self._free: queue.Queue[ProcessPoolExecutor] = queue.Queue()
        for _ in range(count):
            self._free.put(self._worker())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()  # they are idle, or still importing: to wait for that would hold up our own end

    def stop(self) -> None:
        """End all processes and start no others. Who waits in `train` is told; checkpoints stay."""
        self._stopped = True
        for worker in list(self._all):
            _kill(worker)

    def train(
        self, params: Params, ws: Workspace, key: str, *, warm_start: Path | None = None, rung: Rung | None = None
    ) -> Trained:
        """Train a candidate in the next free process, up to a rung if one is given.

        Raises:
            TrainingError: it failed.
            WorkerDied: its process was killed; what it had learnt is in its last checkpoint.
        """
        plain = params.model_dump(mode="json", by_alias=True)
        return self.run(f"trained {key}", _train, plain, ws, key, warm_start, rung, self.count > 1)

    def run(self, what: str, work: Callable[..., T], *arguments: Any) -> T:
        """`work(*arguments)` in the next free process; `what` it does there ("trained lstm") is told if it is killed.

        Raises:
            WorkerDied: its process was killed.
            Exception: whatever `work` raises.
        """
        worker, job = self._free.get(), None
        try:
            self._go_on()
            job = _submitted(worker, work, *arguments)
            while not wait([job], timeout=_LOOK_S).done:  # a thread that waits can be interrupted only between waits
                self._go_on()
            return job.result()
        except BrokenProcessPool:
            worker = self._replaced(worker)
            raise WorkerDied(
                f"the process that {what} was killed, perhaps for want of memory; "
                "run again to resume from its last checkpoint, with fewer runner.workers if memory is short"
            ) from None
        except BaseException:
            if job is not None and not job.done():  # it is still at work for nobody
                worker = self._replaced(worker)
            raise
        finally:
            self._free.put(worker)

    def _replaced(self, worker: ProcessPoolExecutor) -> ProcessPoolExecutor:
        self._go_on()
        _kill(worker)
        self._all.remove(worker)
        return self._worker()

    def _go_on(self) -> None:
        interruption.look()
        if self._stopped or interruption.asked():
            raise Stopped

    def _worker(self) -> ProcessPoolExecutor:
        # spawn: a forked child would inherit the locks of this process's threads
        context = multiprocessing.get_context("spawn")
        worker = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(os.getpid(), self.threads))
        self._all.append(worker)
        if self.ready:
            _submitted(worker, os.getpid)  # starts the process now, not with its first candidate
        return worker


def _submitted(worker: ProcessPoolExecutor, work: Callable[..., T], *arguments: Any) -> Future[T]:
    """What a worker is given to do, which starts its process if it has none yet.

    Ctrl-C reaches all of a terminal's processes; ours are ended by `stop`, and one that is still importing would only complain.
    """
    resource_tracker.ensure_running()  # here, since it unblocks signals that it finds blocked
    with interruption.deaf():
        return worker.submit(work, *arguments)


def _begin(parent: int, threads: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for what it starts in turn: others may not inherit that it is deaf
    keep_memory()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    import torch

    import cellwright.training.fit  # noqa: F401 - what takes seconds to import is imported while the data are made

    torch.set_num_threads(threads)
    sys.stdin.close()


def _train(
    params: dict[str, object], ws: Workspace, key: str, warm_start: Path | None, rung: Rung | None, shared: bool
) -> Trained:
    from cellwright.steps.train import train

    return train(check(params, "run"), ws, key, warm_start=warm_start, rung=rung, shared=shared)


def _kill(worker: ProcessPoolExecutor) -> None:
    for process in list((worker._processes or {}).values()):
        process.kill()
    worker.shutdown(wait=False, cancel_futures=True)
