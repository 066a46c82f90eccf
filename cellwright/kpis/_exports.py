"""Exporting candidates to ONNX in one process beside this one, while this one forecasts: neither is timed."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Self

from cellwright.errors import BundleError
from cellwright.processes import die_with_parent


class Exports:
    """Exports that are under way; leave the block, or wait for all of them, before anything is timed."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._under_way: dict[Path, Future[None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self, folder: Path, target: Path) -> None:
        """Begin to export the forecaster in `folder` to `target`."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a forked child would inherit the locks of torch's threads
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(os.getpid(),))
        self._under_way[target] = self._pool.submit(_export, folder, target)

    def outcome(self, target: Path) -> Path | BundleError:
        """`target` once it is written, or why there is no such file."""
        try:
            self._under_way[target].result()
        except BrokenProcessPool:
            return BundleError("the process that exported it was killed, perhaps for want of memory")
        except BundleError as error:
            return error
        except Exception as error:  # the exporter traces code of any network, and raises whatever that does
            return BundleError(f"it cannot be exported: {type(error).__name__}: {error}")
        return target

    def wait_for_all(self) -> None:
        """Until none is under way, whatever came of them; the process is gone then."""
        for future in self._under_way.values():
            future.exception()
        self.close()

    def close(self) -> None:
        """End the process; what it has not begun is not exported."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _begin(parent: int) -> None:
    die_with_parent(parent)
    import torch

    torch.set_num_threads(1)


def _export(folder: Path, target: Path) -> None:
    from cellwright.bundle.export import export_onnx
    from cellwright.forecaster import Forecaster

    export_onnx(Forecaster.load(folder), target)
