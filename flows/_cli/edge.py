"""`edge serve`, `fetch`, `forecast`: from the published bundle to an answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwright.errors import WrongUse
from flows._cli.common import Json, show, workspace
from flows._cli.fetch import EDGE, Ca, Trust, device_of, fetch

if TYPE_CHECKING:
    from cellwright.workspace import Workspace

Url = Annotated[str, typer.Option("--edge", help="Address of the edge server.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The edge server.", no_args_is_help=True)
    group.command("serve")(serve)
    app.add_typer(group, name="edge")
    app.command("fetch")(fetch)
    app.command("forecast")(forecast)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve to other machines without TLS.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Forecast with the INT8 model where a bundle offers one.")] = False,
    trust: Trust = None,
) -> None:
    """Offer the published bundles for download and answer forecasts, until Ctrl-C."""
    from cellwright.edge import serve as edge

    edge.serve(
        workspace(),
        host,
        port,
        tls_certificate=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        trust=tuple(trust or ()),
        precision="int8" if int8 else "fp32",
        on_ready=lambda ready: typer.echo(
            f"edge on {ready.url}: GET /v1/bundles, POST /v1/forecast, GET /metrics; Ctrl-C stops it"
        ),
    )


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
