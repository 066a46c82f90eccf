"""Pack and sign the winner, and hand it to the edge and to the hub."""

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


@task(cache_policy=NO_CACHE, task_run_name="publish to hub", tags=["publish"], timeout_seconds=3600)
def publish_to_hub(root: str, run: str, published: Published, in_use: bool) -> None:
    """Upload the bundle to the hub that params.yaml names; with `in_use`, the edges that shall hold it are told to serve it.

    Raises:
        HubError: the hub cannot be reached, or refuses.
    """
    from cellwright.steps.hub import hub_of, put_in_use, upload

    params, ws = opened(root, run)
    with hub_of(params.hub, ws) as client:
        if client is None:
            return
        release = upload(client, ws, published.name, published.semantic, published.mae_fp32)
        edges = put_in_use(client, published.name, published.semantic).edges if in_use else None
    where = "uploaded, not in use" if edges is None else f"in use on {', '.join(edges) or 'no edge yet'}"
    say(f"hub      {published.name} {release.version}: {release.bytes / 1e3:.0f} kB, {where}")
