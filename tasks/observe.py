"""Show the champion the telemetry that arrived since, and tell of drift."""

from __future__ import annotations

from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from cellwright.errors import NothingNew
from cellwright.params import load
from cellwright.results import Observation, SiteDrift
from cellwright.workspace import Workspace
from tasks._run import say, transient

DRIFT = "cellwright.drift"
SETTLED = "cellwright.drift.settled"
_MOST_SITES = 200  # in one event


@task(
    cache_policy=NO_CACHE,
    task_run_name="observe: {dataset}",
    tags=["monitor"],
    retries=1,
    retry_condition_fn=transient,
    timeout_seconds=3600,
)
def observe_champion(root: str, dataset: str, overrides: list[str], batch_h: float | None = None) -> Observation | None:
    """Score the champion on the next telemetry, run the detectors, and emit what they found as events.

    `cellwright.drift` tells of each change (site, time, size); `cellwright.drift.settled` asks for retraining, once a change.

    None: no telemetry has arrived, which is no failure.

    Raises:
        RegistryError: there is no champion.
    """
    from cellwright.lifecycle.monitor import acknowledge, observe
    from cellwright.registry.champions import present

    ws = Workspace(Path(root))
    params = load(ws.root / "params.yaml", [*overrides, f"dataset={dataset}"])
    champion = present(params, ws)
    name, version, folder = champion.model_name, str(champion.version), Path(str(champion.folder))
    try:
        found = observe(params, ws, folder, version, name=name, batch_h=batch_h)
    except NothingNew as nothing:
        say(f"observe  {nothing}")
        return None
    say(
        f"observe  {name} version {version}, {found.first} – {found.stop}: MAE {found.mae:.4g}, usual {found.usual_mae:.4g}; {found.reason}"
    )
    create_markdown_artifact(_page(name, found), key=f"monitor-{dataset}", description=f"{name} on the newest telemetry")
    if found.drifts:
        _emit(DRIFT, name, found, found.drifts)
    if found.retrain:
        _emit(SETTLED, name, found, found.pending)
    acknowledge(ws, name)
    return found


def _emit(event: str, name: str, found: Observation, drifts: list[SiteDrift]) -> None:
    """One event for all sites: what changed, when, and by how much."""
    sizes = [d.size for d in drifts]
    # the same finding told twice (a run killed after it told, before it noted that) is one event
    same = uuid5(NAMESPACE_URL, f"{event}/{name}/{found.version}/{found.stop_row}")
    emit_event(
        id=same,
        event=event,
        resource={"prefect.resource.id": f"cellwright.champion.{name}", "prefect.resource.name": name},
        payload={
            "dataset": found.dataset,
            "version": found.version,
            "until": found.stop_row,
            "size": sum(sizes) / len(sizes),
            "sites": len(drifts),
            "changes": [d.model_dump() for d in drifts[:_MOST_SITES]],
            "reason": found.reason,
        },
    )


def _page(name: str, found: Observation) -> str:
    lines = [
        f"## {name}, version {found.version}",
        f"{found.first} – {found.stop}: MAE one step ahead **{found.mae:.4g}**, usual at these hours {found.usual_mae:.4g}.",
        "",
        found.reason,
    ]
    if found.pending:
        lines += ["", "| site | noticed | error |", "|-|-|-|"]
        lines += [f"| {d.site} | {d.time} | {d.size:+.0%} |" for d in found.pending[:50]]
    return "\n".join(lines)
