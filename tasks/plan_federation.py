"""Hand a federation's request to the FMLMS: classified, its nodes chosen, its topology built (M.3387 8.1 to 8.5)."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks._run import opened, say


@task(cache_policy=NO_CACHE, task_run_name="request", tags=["federate"], timeout_seconds=2 * 3600)
def plan_federation(root: str, run: str) -> str:
    """Plan the federation of a run, and show in the UI which nodes were chosen and why; returns the request's id."""
    from cellwright.federation.federate import bed, planned
    from cellwright.steps.federate import key_of

    params, ws = opened(root, run)
    made = planned(bed(params, ws, key_of(params)), say=lambda line: say(f"federate {line}"))
    rows = [
        {"node": c.node, "chosen": "yes" if c.chosen else "no", "score": round(c.score, 3), "why": "; ".join(c.reasons)}
        for c in made.choices
    ]
    create_table_artifact(rows, key=f"federation-nodes-{params.dataset}".lower(), description=f"Nodes of {run}: {made.class_}")
    return made.request
