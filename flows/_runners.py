"""Where candidates train: the Prefect task runner and, for `processes`, the workers behind it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from cellwright.params import Runner
from cellwright.training.workers import Workers


def count(runner: Runner) -> int:
    """Candidates at once."""
    if runner.kind == "serial":
        return 1
    return runner.workers or max(1, len(os.sched_getaffinity(0)) // runner.threads_per_worker)


def task_runner(runner: Runner) -> TaskRunner[Any]:
    """The Prefect task runner for a kind. Processes sit behind threads that wait for them: a child then needs no Prefect."""
    if runner.kind != "dask":
        return ThreadPoolTaskRunner(max_workers=count(runner))
    from prefect_dask import DaskTaskRunner

    if runner.dask_address:
        return DaskTaskRunner(address=runner.dask_address)
    local = {"n_workers": count(runner), "threads_per_worker": 1, "dashboard_address": None, "processes": True}
    return DaskTaskRunner(cluster_kwargs=local)


def pool(runner: Runner, *, ready: bool = True) -> AbstractContextManager[Workers | None]:
    """The worker processes of the kind `processes`, started at once if `ready`; nothing for the others."""
    if runner.kind != "processes":
        return nullcontext()
    return Workers(count(runner), runner.threads_per_worker, ready=ready)
