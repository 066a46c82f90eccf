"""`rollout start|status|promote|rollback`: a new version replaces the champion, watched; and the person's last word."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows._cli.common import Json, Set, parameters, show, workspace

if TYPE_CHECKING:
    from cellwright.lifecycle.rollout.record import Rolling
    from cellwright.lifecycle.rollout.rules import Event

Name = Annotated[str, typer.Argument(help="Bundle, as `cellwright rollout status` or the published folder names it.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Safe replacement of the version in use.", no_args_is_help=True)
    group.command("start")(start)
    group.command("status")(status)
    group.command("promote")(promote)
    group.command("rollback")(rollback)
    group.command("follow")(follow)
    app.add_typer(group, name="rollout")


def start(
    name: Name,
    version: Annotated[str, typer.Argument(help="Published version that shall replace the one in use.")],
    mode: Annotated[str | None, typer.Option(help="canary, blue_green or direct; else as in params.yaml.")] = None,
    edge: Annotated[list[str] | None, typer.Option(help="Address of an edge that is asked for evidence; repeatable.")] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Drive a rollout to its end. Ctrl-C leaves it as it is; the same command goes on."""
    from cellwright.steps.rollout import roll_out

    given = [*(overrides or ()), *([f"rollout.mode={mode}"] if mode else [])]
    given += [f"rollout.edges=[{', '.join(edge)}]"] if edge else []
    ws = workspace()
    params = parameters(ws, given)
    done = roll_out(params, ws, name, version, tell=lambda rolling, event: None if as_json else _tell(event))
    if as_json:
        show(done.model_dump(mode="json"), True)
    if done.state.outcome == "rolled_back":
        raise typer.Exit(1)


def status(
    name: Annotated[str | None, typer.Argument(help="Bundle; none: all that have, or had, a rollout.")] = None,
    as_json: Json = False,
) -> None:
    """How far each rollout is, and what its guards say."""
    from cellwright.lifecycle.rollout.record import Files, names

    folder = workspace().rollouts
    found = [Files(folder, each).read() for each in ([name] if name else names(folder))]
    if as_json:
        show([rolling.model_dump(mode="json") for rolling in found], True)
        return
    if not found:
        typer.echo("there was no rollout yet; `cellwright rollout start` begins one")
    for rolling in found:
        show(_page(rolling), False)


def promote(name: Name, overrides: Set = None) -> None:
    """Promote the challenger now, whatever the guards say."""
    _decide(name, overrides, promoted=True)


def rollback(name: Name, overrides: Set = None) -> None:
    """Take the challenger back now, also after it was promoted."""
    _decide(name, overrides, promoted=False)


def follow(overrides: Set = None) -> None:
    """Bring what the registry's champion aliases name to the edge and the hub."""
    from cellwright.steps.rollout import follow_champion

    ws = workspace()
    for line in follow_champion(parameters(ws, overrides), ws) or ("nothing has changed",):
        typer.echo(line)


def _decide(name: str, overrides: list[str] | None, *, promoted: bool) -> None:
    from cellwright.lifecycle.rollout.controller import decide
    from cellwright.lifecycle.rollout.record import Files
    from cellwright.steps.rollout import hands

    ws = workspace()
    with hands(parameters(ws, overrides).hub, ws) as acting:
        done = decide(Files(ws.rollouts, name), acting, promoted=promoted)
    serving = done.state.challenger if promoted else done.state.champion
    typer.echo(f"{name}: {done.state.events[-1].what}; {serving} is in use")


def _tell(event: Event) -> None:
    typer.echo(f"{datetime.fromtimestamp(event.at_s, UTC):%H:%M:%S}  {event.weight:>4.0%}  {event.what}")


def _page(rolling: Rolling) -> Any:
    from rich.console import Group
    from rich.table import Table

    state = rolling.state
    lines = [f"{state.model}: {state.challenger} in place of {state.champion}, {rolling.params.mode}, {_stands(rolling)}"]
    lines += [f"  waiting for {who}: {why}" for who, why in rolling.waiting.items()]
    table = Table(box=None, pad_edge=False)
    for column in ("guard", "says", "why"):
        table.add_column(column, overflow="fold")
    for one in rolling.said:
        table.add_row(one.guard, one.verdict.replace("_", " "), one.reason)
    return Group(*lines, table) if rolling.said else Group(*lines)


def _stands(rolling: Rolling) -> str:
    state = rolling.state
    if state.outcome != "running":
        return f"{state.outcome.replace('_', ' ')}: {state.events[-1].what}"
    age_s = time.time() - state.stage_since_s
    stages = max(1, len(rolling.params.stages))
    return f"stage {state.stage + 1} of {stages} for {age_s:.0f} s: it answers {state.weight:.0%} of the requests"
