"""Replace the champion on the edges, guarded."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from cellwright.lifecycle.rollout.record import Rolling
from cellwright.lifecycle.rollout.rules import Event
from cellwright.params import load
from cellwright.workspace import Workspace
from tasks._run import opened, say

WANTED = "cellwright.rollout.wanted"
ENDED = "cellwright.rollout.ended"


@task(cache_policy=NO_CACHE, task_run_name="roll out {name} {version}", tags=["publish"])
def roll_out(root: str, run: str, name: str, version: str) -> Rolling:
    """Let a version replace the one in use as params.yaml's section rollout says; events are logged, the end is an artifact.

    A rollout that ends with the way back is no failure: it did what it is for.

    Raises:
        CellwrightError: it can never take effect.
    """
    from cellwright.steps.rollout import roll_out as step

    params, ws = opened(root, run)
    done = step(params, ws, name, version, tell=_tell)
    key = f"rollout-{params.dataset}"
    create_markdown_artifact(_page(done), key=key, description=f"{name}: {version} {done.state.outcome.replace('_', ' ')}")
    create_table_artifact([s.model_dump() for s in done.said], key=f"{key}-guards", description="What each guard said at the end")
    _emit(ENDED, name, {"dataset": params.dataset, "run": run, "version": version, "outcome": done.state.outcome})
    return done


@task(cache_policy=NO_CACHE, task_run_name="follow champions", tags=["publish"])
def follow_champions(root: str, overrides: list[str]) -> tuple[str, ...]:
    """Bring what the registry's aliases name to the edge and the hub."""
    from cellwright.steps.rollout import follow_champion

    ws = Workspace(Path(root))
    changed = follow_champion(load(ws.root / "params.yaml", overrides), ws)
    for line in changed or ("nothing has changed",):
        say(f"follow   {line}")
    return changed


def want_rollout(dataset: str, run: str, name: str, version: str) -> None:
    """Ask for a rollout: the deployment publish/on-win answers."""
    _emit(WANTED, name, {"dataset": dataset, "run": run, "version": version})
    say(
        f"rollout  {name} {version} awaits its rollout: deployment publish/on-win, or `cellwright rollout start {name} {version}`"
    )


def _emit(event: str, name: str, payload: dict[str, str]) -> None:
    resource = {"prefect.resource.id": f"cellwright.champion.{name}", "prefect.resource.name": name}
    emit_event(event=event, resource=resource, payload=payload)


def _tell(rolling: Rolling, event: Event) -> None:
    say(f"rollout  {rolling.state.model}: {event.what}")


def _page(done: Rolling) -> str:
    state = done.state
    lines = [f"## {state.model}: {state.challenger} in place of {state.champion}", "", f"**{state.outcome.replace('_', ' ')}**"]
    lines += ["", "| time | share | what |", "|-|-|-|"]
    for event in state.events:
        time = datetime.fromtimestamp(event.at_s, UTC).isoformat(timespec="seconds")
        lines.append(f"| {time} | {event.weight:.0%} | {event.what.replace('|', '/')} |")
    return "\n".join(lines)
