"""`fetch`: a model onto this device, from one edge, or through a hub from the closest one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwright.errors import WrongUse
from flows._cli.common import Json, show, workspace

if TYPE_CHECKING:
    from cellwright.edge.device import Device, Fetched
    from cellwright.edge.finding import Wanted
    from cellwright.edge.quality import Network
    from cellwright.workspace import Workspace

EDGE = "http://127.0.0.1:8080"
DEVICE = "device"
Ca = Annotated[Path | None, typer.Option("--ca", help="Certificate authority (PEM) of an edge that serves over TLS.")]
Trust = Annotated[list[Path] | None, typer.Option("--trust", help="Public key (PEM) of a publisher besides this project's own.")]
OfHub = "Through a hub"


def fetch(
    name: Annotated[str | None, typer.Argument(help="Model; none: the only one of the edge, or what the hub finds.")] = None,
    version: Annotated[str, typer.Option(help="Version to fetch.")] = "latest",
    edge: Annotated[
        str | None, typer.Option("--edge", help=f"Edge: its address, or its name at the hub [default: {EDGE}]")
    ] = None,
    ca: Ca = None,
    trust: Trust = None,
    folder: Annotated[Path | None, typer.Option(help="Where the device keeps its models.")] = None,
    hub: Annotated[str | None, typer.Option("--hub", help="Address of the hub to ask.", rich_help_panel=OfHub)] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="The device's token; else $CELLWRIGHT_HUB_TOKEN.", rich_help_panel=OfHub)
    ] = None,
    device: Annotated[str, typer.Option(help="Name of this device.", rich_help_panel=OfHub)] = DEVICE,
    service: Annotated[str | None, typer.Option(help="Service that needs the model.", rich_help_panel=OfHub)] = None,
    user_class: Annotated[str | None, typer.Option(help="Class of the user.", rich_help_panel=OfHub)] = None,
    location: Annotated[str | None, typer.Option(metavar="LON,LAT", help="Where, degrees.", rich_help_panel=OfHub)] = None,
    task: Annotated[str | None, typer.Option(help='By requirement: "traffic forecast".', rich_help_panel=OfHub)] = None,
    latency_ms: Annotated[float | None, typer.Option(help="At most; with --task.", rich_help_panel=OfHub)] = None,
    most_bytes: Annotated[int | None, typer.Option("--bytes", help="At most; with --task.", rich_help_panel=OfHub)] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds.", rich_help_panel=OfHub)] = None,
    qos: Annotated[str, typer.Option(help="Who asks for quality: edge, device, none.", rich_help_panel=OfHub)] = "edge",
    network: Annotated[
        str | None, typer.Option(help="Network's APIs; its token in $CELLWRIGHT_QOS_TOKEN.", rich_help_panel=OfHub)
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a model, verify its hashes and signature, and make it the active one. Resumes what broke off.

    With --hub the hub says which model (by name, service, place or requirement), whose keys to believe and which edges have it.
    """
    ws = workspace()
    if hub is None:
        _only_with_hub(service, user_class, location, task, latency_ms, most_bytes, deadline, network)
        url = edge or EDGE
        fetched = device_of(ws, folder, trust, ca).fetch(url, name or only(url, ca), version)
    else:
        wanted = _wanted(name, version, service, user_class, location, task, latency_ms, most_bytes)
        if qos not in ("edge", "device", "none"):
            raise WrongUse(f"--qos must be edge, device or none, found '{qos}'")
        with _hub(hub, token_file, ca) as client:
            on = device_of(ws, folder, trust, ca, device)
            asked: Any = qos
            net = _network(ws, network, needed=qos == "device")
            fetched = on.get(client, wanted, deadline_s=deadline, qos=asked, network=net, edge=edge)
    show(_as_json(fetched), True) if as_json else _tell(fetched)


def device_of(ws: Workspace, folder: Path | None, trust: list[Path] | None, ca: Path | None, name: str = DEVICE) -> Device:
    """The project's device."""
    from cellwright.bundle.keys import trusted
    from cellwright.edge.device import Device

    return Device(folder or ws.device, trusted(ws.keys, *(trust or ())), ca=ca, name=name)


def only(edge: str, ca: Path | None) -> str:
    """The only bundle of an edge. Raises WrongUse: it has none, or several."""
    from cellwright.edge.device import offered

    names = offered(edge, ca=ca)
    if len(names) != 1:
        raise WrongUse(f"{edge} offers {', '.join(names) or 'nothing'}; name the bundle to fetch")
    return str(names[0])


def _hub(url: str, token_file: Path | None, ca: Path | None) -> Any:
    from flows._cli.hub import _client

    return _client(url, token_file, ca)


def _only_with_hub(*given: object) -> None:
    if any(value is not None for value in given):
        raise WrongUse("--service, --user-class, --location, --task, --latency-ms, --bytes, --deadline and --network need --hub")


def _wanted(
    name: str | None,
    version: str,
    service: str | None,
    user_class: str | None,
    location: str | None,
    task: str | None,
    latency_ms: float | None,
    most_bytes: int | None,
) -> Wanted:
    from pydantic import ValidationError

    from cellwright.edge.finding import Wanted
    from cellwright.hub.contract import Requirements

    if task is None and (latency_ms is not None or most_bytes is not None):
        raise WrongUse("--latency-ms and --bytes are bounds on models for a task; name it with --task")
    if name is not None and (task or service or user_class):
        raise WrongUse("name a model, or say what it is for (--service, --user-class, --task), not both")
    try:
        needs = Requirements(task=task, latency_ms=latency_ms, bytes=most_bytes) if task else None
    except ValidationError as error:
        raise WrongUse(f"no model can be asked for so: {error.errors()[0]['msg']}") from None
    return Wanted(name, version, service, user_class, _location(location) if location else None, needs)


def _location(text: str) -> Any:
    from cellwright.hub.contract import Location

    found = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*", text)
    if found is None or abs(float(found[1])) > 180 or abs(float(found[2])) > 90:
        raise WrongUse(f"--location must be longitude,latitude in degrees, like 2.35,48.86; found '{text}'")
    return Location(longitude=float(found[1]), latitude=float(found[2]))


def _network(ws: Workspace, url: str | None, *, needed: bool) -> Network | None:
    import os

    from cellwright.edge.quality import Network
    from cellwright.qos.simulator.state import read_state
    from flows._cli.qos import TOKEN

    if url is None and not needed:
        return None
    state = read_state(ws.network)
    root = url or (state.url if state else None)
    token = os.environ.get(TOKEN) or (state.token if state and state.url == root else None)
    if root is None or token is None:
        raise WrongUse(f"which network? Name one with --network and its token in ${TOKEN}, or start `cellwright network serve`")
    return Network(root, token, ws.qos_journal)


def _as_json(fetched: Fetched) -> dict[str, Any]:
    moved = fetched.transfer
    return {
        "name": fetched.name,
        "version": fetched.version,
        "digest": fetched.digest,
        "new": fetched.new,
        "bytes": moved.received_bytes,
        "seconds": fetched.seconds,
        "path": str(fetched.path),
        "verified_s": fetched.verified_s,
        "stored_s": moved.stored_s,
        "deadline_s": fetched.deadline_s,
        "met": fetched.met,
        "resumed_bytes": moved.resumed_bytes,
        "reused_bytes": moved.reused_bytes,
        "rate_bit_s": fetched.rate_bps,
        "qos_held_s": fetched.qos_held_s,
        "match_age_s": fetched.match_age_s,
        "distrusted": [str(bad) for bad in fetched.distrusted],
        "edges": [stop.name or stop.url for stop in fetched.edges],
        "streams": fetched.streams,
        "delta": fetched.delta,
        "qos": fetched.qos.model_dump(mode="json") if fetched.qos else None,
        "tenant": fetched.tenant,
        "why": fetched.why,
        "notes": list(fetched.notes),
    }


def _tell(fetched: Fetched) -> None:
    if not fetched.new:
        typer.echo(f"{fetched.name} {fetched.version} is active already, verified; {fetched.path}")
        return
    size, rate = fetched.transfer.received_bytes / 1e3, fetched.rate_bps / 1e6
    typer.echo(f"{fetched.name} {fetched.version}: {size:.0f} kB in {fetched.seconds:.2f} s ({rate:.1f} Mbit/s)")
    for line in _lines(fetched):
        typer.echo(line)
    typer.echo("verified    every hash, and the publisher's signature")
    typer.echo(f"active      {fetched.path}")


def _lines(fetched: Fetched) -> list[str]:
    """What only some fetches have to tell."""
    lines = []
    if fetched.why:
        lines.append(f"chosen      {fetched.why}")
    if fetched.edges:
        lines.append(f"edges       {', '.join(stop.name or stop.url for stop in fetched.edges)}")
    if fetched.met is not None:
        verdict = "met" if fetched.met else "missed"
        lines.append(f"deadline    {verdict}: verified after {fetched.verified_s:.2f} s of {fetched.deadline_s:g} s")
    if fetched.delta:
        lines.append(f"patch       {fetched.delta}: {fetched.transfer.reused_bytes / 1e3:.0f} kB were here already")
    if fetched.qos:
        lines.append(f"quality     {fetched.qos.profile or 'none'} {fetched.qos.state}: {fetched.qos.why}")
    return lines + [f"note        {note}" for note in fetched.notes]
