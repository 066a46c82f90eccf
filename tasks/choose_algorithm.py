"""Choose learning algorithm and aggregation mechanism of a federation, where params.yaml leaves them open (M.3387 9.2, 9.3)."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from cellwright.params import Params
from cellwright.workspace import Workspace
from tasks._run import say


@task(cache_policy=NO_CACHE, task_run_name="choose", tags=["federate"], timeout_seconds=3600)
def choose_algorithm(root: str, params: Params) -> Params:
    """The parameters with rule and model named; says why where they were "auto"."""
    from cellwright.federation.deciding import decided

    found = decided(params, Workspace(Path(root)))
    for line in found.words:
        say(f"federate  {line}")
    return found.params
