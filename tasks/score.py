"""Score every candidate in one quiet, serial process of its own."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from cellwright.processes import run_step
from tasks._run import opened, say, transient


@task(
    cache_policy=NO_CACHE,
    task_run_name="score",
    tags=["score"],
    retries=1,
    retry_condition_fn=transient,
    timeout_seconds=6 * 3600,
)
def score_candidates(root: str, run: str) -> int:
    """Measure accuracy, speed, size and energy of what was trained; returns how many candidates have a score."""
    _params, ws = opened(root, run)
    run_step(ws, "score", on_line=say)
    return len(list(ws.scores.glob("*.json")))
