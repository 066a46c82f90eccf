"""Where candidates train: the Prefect task runner and, for `processes`, the workers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from cellwright.params import Runner
from cellwright.training.runner import bounded, workers_of
from cellwright.training.workers import Workers


def task_runner(runner: Runner) -> TaskRunner[Any]:
    """The Prefect task runner for a kind. Processes sit behind threads that wait for them: a child then needs no Prefect."""
    if runner.kind != "dask":
        return ThreadPoolTaskRunner(max_workers=workers_of(runner))
    from prefect_dask import DaskTaskRunner

    if runner.dask_address:
        return DaskTaskRunner(address=runner.dask_address)
    local = {"n_workers": workers_of(runner), "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    return DaskTaskRunner(cluster_kwargs=local)


@contextmanager
def _here(runner: Runner) -> Iterator[None]:
    """Candidates train in this process: its threads are bounded once, for torch counts them for the process."""
    with bounded(runner.threads_per_worker):
        yield


def pool(runner: Runner, *, ready: bool = True) -> AbstractContextManager[Workers | None]:
    """The worker processes of the kind `processes`, started at once if `ready`; nothing for the others."""
    if runner.kind == "dask":
        return nullcontext()
    if runner.kind != "processes":
        return _here(runner)
    return Workers(workers_of(runner), runner.threads_per_worker, ready=ready)
