"""`edge serve`, `fetch`, `forecast`: from the published bundle to an answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwright.errors import WrongUse
from flows._cli.common import Json, Set, parameters, show, workspace
from flows._cli.fetch import EDGE, Ca, Trust, device_of, fetch

if TYPE_CHECKING:
    from cellwright.edge.params import EdgeParams
    from cellwright.workspace import Workspace

Url = Annotated[str, typer.Option("--edge", help="Address of the edge server.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The edge server.", no_args_is_help=True)
    group.command("serve")(serve)
    group.command("nginx-config")(nginx_config)
    app.add_typer(group, name="edge")
    app.command("fetch")(fetch)
    app.command("forecast")(forecast)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="Serve to other machines without TLS.")] = None,
    int8: Annotated[bool | None, typer.Option("--int8", help="Forecast with the INT8 model where a bundle offers one.")] = None,
    trust: Trust = None,
    hub: Annotated[
        str | None, typer.Option(help="Hub that says what to hold for tenants; none: the published bundles alone.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the hub's token (scope edge, named as this edge).")] = None,
    hub_ca: Annotated[
        Path | None, typer.Option(help="Certificate authority (PEM) of the hub, where it is no public one.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="This edge's name at the hub.")] = None,
    location: Annotated[str | None, typer.Option(help="Where it stands: longitude,latitude in degrees.")] = None,
    url: Annotated[str | None, typer.Option(help="Where devices reach it; none: where it listens.")] = None,
    zone: Annotated[str | None, typer.Option(help="Its edge cloud zone (CAMARA Simple Edge Discovery).")] = None,
    disk_budget: Annotated[float | None, typer.Option(help="GB that tenants' models may fill.")] = None,
    eviction: Annotated[
        str | None, typer.Option(help="What goes first where it does not suffice: popularity, size or density.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Network to ask for quality of service when a device arrives (CAMARA).")
    ] = None,
    network_token_file: Annotated[Path | None, typer.Option(help="File with the token for it.")] = None,
    network_address: Annotated[str | None, typer.Option(help="This edge's address as the network sees it; none: --host.")] = None,
    behind_nginx: Annotated[
        bool | None, typer.Option("--behind-nginx", help="Let nginx in front send the files (nginx-config).")
    ] = None,
    access_log: Annotated[bool | None, typer.Option("--access-log", help="Write a JSON line for each request to stdout.")] = None,
    overrides: Set = None,
) -> None:
    """Offer bundles for download and answer forecasts, until Ctrl-C: as section edge of params.yaml says, where no option does.

    With --hub also what tenants publish there: `cellwright edge serve --hub https://hub.example --token-file edge.token --name east
    --location 2.05,48.05 --disk-budget 50`.
    """
    from cellwright.edge.configured import serve_as

    ws = workspace()
    given = {
        "host": host,
        "port": port,
        "tls_certificate": _absolute(tls_cert),
        "tls_key": _absolute(tls_key),
        "insecure": insecure,
        "precision": None if int8 is None else "int8",
        "trust": [str(key.absolute()) for key in trust] if trust else None,
        "hub": hub,
        "hub_token_file": _absolute(token_file),
        "hub_ca": _absolute(hub_ca),
        "name": name,
        "location": None if location is None else _location(location),
        "url": url,
        "zone": zone,
        "disk_gb": disk_budget,
        "eviction": eviction,
        "network": network,
        "network_token_file": _absolute(network_token_file),
        "network_address": network_address,
        "behind_nginx": behind_nginx,
        "access_log": access_log,
    }
    serve_as(
        _section(ws, overrides, {key: value for key, value in given.items() if value is not None}),
        ws,
        lambda ready: typer.echo(f"edge on {ready.url}: GET /v1/bundles, POST /v1/forecast, GET /metrics; Ctrl-C stops it"),
    )


def _section(ws: Workspace, overrides: list[str] | None, given: dict[str, Any]) -> EdgeParams:
    """Section edge of params.yaml with `given` over it; the defaults on a machine that has no params.yaml."""
    from cellwright.params import Params, laid_over

    there = (ws.root / "params.yaml").is_file() or overrides
    return laid_over(parameters(ws, overrides) if there else Params(), {"edge": given}, "the options of edge serve").edge


def _absolute(path: Path | None) -> str | None:
    """A path that was given on the command line is that of the folder there."""
    return None if path is None else str(path.absolute())


def nginx_config(
    listen: Annotated[str, typer.Option(help="Port, or address:port, that nginx listens on.")] = "8081",
    edge: Annotated[str, typer.Option(help="Address of the edge, which was started with --behind-nginx.")] = "127.0.0.1:8080",
    folder: Annotated[Path | None, typer.Option(help="For nginx's own files; none: in the state folder.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
) -> None:
    """Print a configuration of nginx in front of an edge: `cellwright edge nginx-config > nginx.conf; nginx -c $PWD/nginx.conf`."""
    from cellwright.edge.nginx import Front, config

    ws = workspace()
    own = folder or ws.state / "nginx"
    made = config(Front(ws.published, own, edge, listen, tls_cert, tls_key))
    own.mkdir(parents=True, exist_ok=True)
    typer.echo(made, nl=False)


def _location(text: str) -> list[float]:
    longitude, _, latitude = text.partition(",")
    try:
        found = [float(longitude), float(latitude)]
    except ValueError:
        found = []
    if len(found) != 2 or not (abs(found[0]) <= 180 and abs(found[1]) <= 90):
        raise WrongUse(f"--location must be longitude,latitude in degrees, like 2.05,48.05; found '{text}'")
    return found


def forecast(
    request: Annotated[
        str | None, typer.Argument(help="Request as a JSON file, `-` for stdin; none: the panel's last rows.")
    ] = None,
    site: Annotated[list[str] | None, typer.Option(help="Site, where the request is made from the panel.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle to ask; none: the only one.")] = None,
    edge: Url = EDGE,
    local: Annotated[bool, typer.Option("--local", help="Ask the bundle that was fetched to this device, not the edge.")] = False,
    ca: Ca = None,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Ask for a forecast, in raw units."""
    ws = workspace()
    asked = _request(ws, request, bundle, tuple(site or ()))
    if local:
        answer = device_of(ws, None, trust, ca).forecast(asked)
    else:
        from cellwright.edge.device import ask

        answer = ask(edge, asked, ca=ca)
    show(answer if as_json else _table(answer), as_json)


def _request(ws: Workspace, given: str | None, bundle: str | None, sites: tuple[str, ...]) -> dict[str, Any]:
    if given is None:
        from cellwright.edge.sample import sample_of

        return sample_of(ws, bundle, sites=sites)
    text = sys.stdin.read() if given == "-" else Path(given).read_text()
    try:
        found = json.loads(text)
    except ValueError as error:
        raise WrongUse(f"{given} is not JSON ({error}); `cellwright forecast --help` tells of the form") from None
    if not isinstance(found, dict):
        raise WrongUse(f"{given} must hold one JSON object, found {type(found).__name__}")
    return found


def _table(answer: dict[str, Any]) -> Any:
    from rich.table import Table

    units = answer["units"]
    table = Table(box=None, pad_edge=False, title=f"{answer.get('bundle', '')} {answer.get('version', '')}", title_justify="left")
    table.add_column("site")
    table.add_column("target")
    for time in answer["times"]:
        table.add_column(str(time), justify="right")
    for site, targets in answer["forecasts"].items():
        for target, values in targets.items():
            table.add_row(site, f"{target} ({units[target]})", *(f"{v:.4g}" for v in values))
    return table
