"""Tell MLflow of the run; the winner becomes champion if it beats the present one."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from cellwright.results import Registered
from tasks._run import opened, say, transient


@task(
    cache_policy=NO_CACHE,
    task_run_name="register",
    tags=["register"],
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=transient,
    timeout_seconds=3600,
)
def register_run(root: str, run: str, promote: bool) -> Registered:
    """Log runs and metrics, create the model version, move the alias if it is earned."""
    from cellwright.steps.register import register

    params, ws = opened(root, run)
    registered = register(params, ws, promote=promote)
    say(f"register {registered.model_name} {registered.semantic or ''}: {registered.reason}")
    return registered
