"""`network serve`, `qos sessions`, `qos release`: a simulated network, and the QoS sessions that this project holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwright.errors import WrongUse
from flows._cli.common import Json, show, workspace

if TYPE_CHECKING:
    from cellwright.qos.client import QodClient
    from cellwright.qos.simulator.network import Network
    from cellwright.workspace import Workspace

TOKEN = "CELLWRIGHT_QOS_TOKEN"  # noqa: S105  # the variable's name
Url = Annotated[str | None, typer.Option("--network", help="Address of the network's APIs; none: the simulator of this project.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    network = typer.Typer(help="A simulated network: CAMARA APIs with state, and shaped traffic.", no_args_is_help=True)
    network.callback()(_network)
    network.command("serve")(serve)
    app.add_typer(network, name="network")
    qos = typer.Typer(help="Quality-of-service sessions that this project asked a network for.", no_args_is_help=True)
    qos.command("sessions")(sessions)
    qos.command("release")(release)
    app.add_typer(qos, name="qos")


def _network() -> None:
    """Keeps `serve` a command of its own."""


def serve(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9091,
    config: Annotated[
        Path | None, typer.Option(help="Cells, zones, devices, profiles, behaviour (YAML); none: one cell.")
    ] = None,
) -> None:
    """Simulate a network until Ctrl-C. Its tokens lie in .cellwright/network.json, readable by you alone."""
    from cellwright.qos.simulator.network import Network
    from cellwright.qos.simulator.network import serve as run
    from cellwright.qos.simulator.options import read_options

    ws = workspace()
    network = Network(read_options(config) if config else None, port=port)
    try:
        run(network, on_ready=lambda ready: _tell(ws, ready))
    finally:
        ws.network.unlink(missing_ok=True)


def sessions(network: Url = None, as_json: Json = False) -> None:
    """List the sessions in the journal, and what the network says of each."""
    with _client(network) as (client, journal):
        rows = [_row(client, entry) for entry in journal.entries(client.root)]
    if as_json:
        show(rows, True)
        return
    for row in rows:
        typer.echo(f"{row['session'] or '(unnamed)':<36}  {row['profile']}  {row['device']}  {row['status']}  {row['owner']}")
    if not rows:
        typer.echo("no QoS session is held")


def release(
    network: Url = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those whose process still runs.")] = False,
    as_json: Json = False,
) -> None:
    """Delete the sessions that crashed processes left."""
    with _client(network) as (client, _journal):
        released = client.release(everything=everything)
    if as_json:
        show([{"session": str(r.entry.session_id), "error": r.error} for r in released], True)
    else:
        for one in released:
            typer.echo(f"{one.entry.session_id or '(unnamed)'}  {one.error or 'released'}")
        if not released:
            typer.echo("nothing to release")
    if any(one.error for one in released):
        raise typer.Exit(1)


def _tell(ws: Workspace, network: Network) -> None:
    from cellwright.files import write_bytes
    from cellwright.qos.simulator.state import state_of

    write_bytes(ws.network, state_of(network), mode=0o600)
    typer.echo(f"network on {network.url}: /quality-on-demand/v1, /qos-profiles/v1, /simple-edge-discovery/v2, /simulator")
    typer.echo(f"tokens      {ws.network}; Ctrl-C stops it")


def _row(client: QodClient, entry: Any) -> dict[str, str | None]:
    from cellwright.errors import QosError

    try:
        status = str(client.get(entry.session_id).qos_status) if entry.session_id else "not known"
    except QosError as error:
        status = str(error)
    device = entry.asked.device.wire() if entry.asked.device else {}
    return {
        "session": str(entry.session_id) if entry.session_id else None,
        "profile": entry.asked.qos_profile,
        "device": ", ".join(f"{key}={value}" for key, value in device.items()) or "that of the token",
        "status": status,
        "owner": "its process is gone" if entry.orphaned else f"in use by process {entry.owner}",
    }


def _client(network: str | None) -> Any:
    """A client of the network and the project's journal, as one context."""
    from contextlib import contextmanager

    from cellwright.qos.client import QodClient
    from cellwright.qos.journal import Journal
    from cellwright.qos.simulator.state import read_state

    ws = workspace()
    state = read_state(ws.network)
    root = network or (state.url if state else None)
    token = os.environ.get(TOKEN) or (state.token if state and state.url == root else None)
    if root is None or token is None:
        raise WrongUse(
            f"which network? Start the simulator (`cellwright network serve`), or name one with --network and its token in ${TOKEN}"
        )

    @contextmanager
    def opened() -> Any:
        journal = Journal(ws.qos_journal)
        client = QodClient(root, token, journal=journal)
        try:
            yield client, journal
        finally:
            client.close()

    return opened()
