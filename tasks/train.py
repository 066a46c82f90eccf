"""Train one candidate, in a worker process, a thread or on Dask, as params.yaml names."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from cellwright.results import Trained
from cellwright.training.halving import Rung
from cellwright.training.workers import WorkerDied, Workers
from tasks._run import opened, say


async def _worker_died(task: object, task_run: object, state: object) -> bool:
    """A killed worker is worth another try: training resumes from its last checkpoint."""
    try:
        await state.result()  # type: ignore[attr-defined]
    except WorkerDied:
        return True
    except Exception:
        return False
    return False


@task(
    cache_policy=NO_CACHE,
    task_run_name="train: {key}",
    tags=["train"],
    retries=1,
    retry_condition_fn=_worker_died,
    timeout_seconds=24 * 3600,
)
def train_candidate(
    root: str, run: str, key: str, workers: Workers | None = None, warm_start: str | None = None, rung: Rung | None = None
) -> Trained:
    """Train a candidate, up to a rung if one is given, or find it trained. `workers`: the processes to do it in; None: here.

    Raises:
        TrainingError: it failed; candidate.json says why.
    """
    params, ws = opened(root, run)
    start = Path(warm_start) if warm_start else None
    if workers is not None:
        trained = workers.train(params, ws, key, warm_start=start, rung=rung)
    else:
        from cellwright.steps.train import train
        from cellwright.training.runner import at_home, bounded

        on_dask = params.runner.kind == "dask"  # a process of its own; elsewhere the flow has bounded it
        if on_dask:
            at_home(ws)
        with bounded(params.runner.threads_per_worker) if on_dask else nullcontext():
            trained = train(params, ws, key, warm_start=start, rung=rung, shared=params.runner.kind != "serial")
    say(f"train    {trained.title}: {trained.status}, {trained.epochs} epochs in {trained.train_s:.1f} s. {trained.reason}")
    return trained
