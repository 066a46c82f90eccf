"""Publish a finished run's choice: register, bundle, hub, rollout, report; all of it, or nothing."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from cellwright import runs
from cellwright.files import write_text
from cellwright.params import Params, load
from cellwright.steps.publication import present_where
from cellwright.workspace import Workspace
from flows._catalogue import ROOT
from flows._hooks import notify
from flows._publication import publication, register_and_publish
from tasks._run import say
from tasks.report import write_report
from tasks.rollout import follow_champions, roll_out


@flow(
    name="publish",
    flow_run_name="publish {run}",
    description="Publish a run's choice to the edges: registered, signed, uploaded to the hub, rolled out; a failure takes it all back.",
    on_failure=[notify],
    on_crashed=[notify],
)
def publish(
    run: Annotated[str, Field(description="Name of a run; empty: the newest")] = "",
    promote: Annotated[bool, Field(description="Let it become the champion if it beats the present one")] = True,
    overrides: Annotated[list[str], Field(description="section.key=value of params.yaml: rollout and hub")] = [],  # noqa: B006 - only read
) -> str:
    """Returns how it ended, in one sentence. A rollout that takes the version back is no failure.

    Raises:
        CellwrightError: what stopped it; nothing is published then.
    """
    ws = runs.latest(Workspace(ROOT), run or None)
    with runs.locked(ws):
        params = _where(ws, overrides)
        with publication(params, ws) as let_others:
            registered, published = register_and_publish(params, ws, promote=promote)
            said = f"{published.name} {published.semantic}: {registered.reason}"
            if registered.awaits_rollout:
                let_others()
                done = roll_out(str(ws.root), ws.run, published.name, published.semantic)
                said = f"{published.name}: {done.state.events[-1].what}"
            write_report(str(ws.root), ws.run)
    say(f"publish  {said}")
    return said


@flow(
    name="follow",
    description="The registry's champion aliases, moved by hand or by others, reach the edge and the hub.",
    on_failure=[notify],
    on_crashed=[notify],
)
def follow(
    overrides: Annotated[list[str], Field(description="section.key=value of params.yaml")] = [],  # noqa: B006 - only read
) -> int:
    """One look; returns how much has changed."""
    return len(follow_champions(str(ROOT), overrides))


def _where(ws: Workspace, overrides: list[str]) -> Params:
    """The run's own parameters, with the present sections `rollout` and `hub`: they say where and when, not what."""
    own = runs.params_of(ws)
    params = present_where(own, load(ROOT / "params.yaml", [*overrides, f"dataset={own.dataset}"]), overrides)
    write_text(ws.run_folder / "params.json", params.model_dump_json(by_alias=True, indent=2) + "\n")
    return params
