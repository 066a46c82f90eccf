"""Pack and sign the winner, and hand it to the edge."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from cellwright.results import Published
from tasks._run import opened, say, transient


@task(
    cache_policy=NO_CACHE,
    task_run_name="publish",
    tags=["publish"],
    retries=1,
    retry_condition_fn=transient,
    timeout_seconds=3600,
)
def publish_bundle(root: str, run: str) -> Published:
    """Write the signed bundle into the folder that the edge server offers; it is served if its version is champion."""
    from cellwright.steps.publish import publish

    params, ws = opened(root, run)
    published = publish(params, ws)
    size = f"{published.model_bytes / 1e3:.0f} kB"
    say(f"publish  {published.name} {published.semantic}: {size}, parity {published.parity:.1e}, {published.digest[:19]}")
    return published
