"""Decide where the candidates of a run start from."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks._run import opened, say, transient


@task(
    cache_policy=NO_CACHE,
    task_run_name="start of {run}",
    tags=["register"],
    retries=1,
    retry_condition_fn=transient,
    timeout_seconds=600,
)
def find_start(root: str, run: str) -> dict[str, str]:
    """Candidate -> folder of the forecaster that it starts from; empty where all start from fresh weights.

    Raises:
        RegistryError: the registry cannot be used.
    """
    from cellwright.registry.start import start
    from cellwright.results import DataVersion

    params, ws = opened(root, run)
    found = start(params, ws, DataVersion.read(Path(ws.run_folder) / "data.json"))
    say(f"start    {found.sentence}")
    return found.folders
