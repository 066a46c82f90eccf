"""`federate up`, `federate admit`, `federate node`: the SuperLink and the SuperNodes of a deployed federation."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellwright.errors import WrongUse
from flows._cli.common import Dataset, Set, parameters, workspace

if TYPE_CHECKING:
    from cellwright.params import Params
    from cellwright.workspace import Workspace

Address = Annotated[
    str | None,
    typer.Option("--address", help="host:port of the SuperLink, from another machine of its door; else federation.address."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group `federate`."""
    app.command("up")(up)
    app.command("admit")(admit)
    app.command("node")(node)


def up(
    owners: Annotated[
        int | None, typer.Option("--owners", min=0, help="SuperNodes on this machine; 0: the SuperLink alone.")
    ] = None,
    address: Address = None,
    door: Annotated[
        str | None, typer.Option(help="host:port at which SuperNodes of other machines may join, such as 0.0.0.0:9443.")
    ] = None,
    host: Annotated[list[str] | None, typer.Option(help="Name or address by which these machines know this one.")] = None,
    dataset: Dataset = None,
    overrides: Set = None,
) -> None:
    """Start a SuperLink, and a SuperNode for each data owner, on this machine; Ctrl-C stops them all."""
    from cellwright.federation.runtimes import deployed

    ws = workspace()
    params = parameters(ws, overrides, dataset)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell that starts us in the background ignores Ctrl-C
        signal.signal(number, _interrupted)
    panels = _panels(ws, params, owners)
    at = address or params.federation.address
    with deployed.up(panels, folder(ws), address=at, door=door, hosts=tuple(host or ()), energy=params.energy) as running:
        typer.echo(f"SuperLink   {at}, over TLS; CA {running.files.ca}")
        typer.echo(f"door        {door or 'closed: SuperNodes of this machine alone (--door)'}")
        typer.echo(f"SuperNodes  {', '.join(panels) or 'none here; let others join with `cellwright federate admit`'}")
        typer.echo(f"coordinator {running.coordinator}")
        typer.echo(f"logs        {running.files.log('superlink').parent}")
        typer.echo(f"train       {_train(params, address, dataset, owners)}, in another terminal\nCtrl-C stops them.")
        _until_stopped(running.check)
    typer.echo("stopped: nothing is left running")


def admit(
    shown: Annotated[list[Path], typer.Argument(help="admission.json of each data owner.")],
    address: Address = None,
    overrides: Set = None,
) -> None:
    """Let data owners' SuperNodes on other machines join this machine's SuperLink."""
    from cellwright.federation.runtimes import deployed, settings

    ws = workspace()
    files, at = deployed.Files(folder(ws).resolve()), address or parameters(ws, overrides).federation.address
    for path in shown:
        owner = settings.admission(path)
        deployed.admit(files, at, owner)
        typer.echo(f"admitted    {owner.owner}")


def node(
    owner: Annotated[str, typer.Argument(help="Name of the data owner.")],
    panel: Annotated[Path | None, typer.Option(help="Folder of its panel; none: only its keys are made.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The SuperLink's ca.pem.")] = None,
    coordinator: Annotated[str | None, typer.Option(help="The coordinator's public key, as `federate up` shows it.")] = None,
    peer: Annotated[list[Path] | None, typer.Option(help="admission.json of another owner, for sealed sums.")] = None,
    address: Address = None,
    overrides: Set = None,
) -> None:
    """Make a data owner's keys and start its SuperNode on this machine; Ctrl-C stops it."""
    from cellwright.federation.runtimes import deployed, servers, settings

    ws = workspace()
    params, files = parameters(ws, overrides), deployed.Files(folder(ws).resolve())
    servers.node_keys(files, owner)
    typer.echo(f"keys        {files.node(owner)}; admit it with its {settings.ADMISSION} (`cellwright federate admit`)")
    if panel is None:
        return
    if ca is None or coordinator is None:
        raise WrongUse(
            "a SuperNode needs --ca (the SuperLink's ca.pem) and --coordinator (the public key that `federate up` shows)"
        )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    at, others = address or params.federation.address, [settings.admission(path) for path in peer or ()]
    peers = {other.owner: other.signing for other in others}
    with deployed.joined(files, owner, panel, at, ca=ca, coordinator=coordinator, peers=peers, energy=params.energy) as running:
        typer.echo(f"SuperNode   '{owner}' at {at}; log {running.log}\nCtrl-C stops it.")
        _until_stopped(running.check)
    typer.echo("stopped")


def folder(ws: Workspace) -> Path:
    """Where the deployment keeps keys, node states and logs."""
    return ws.state / "federation"


def _panels(ws: Workspace, params: Params, owners: int | None) -> dict[str, Path]:
    """A panel folder for each data owner of the data set, which is made where it is not there yet; the owner sees no other's."""
    from cellwright.federation.owners import cut, groups
    from cellwright.panel import Panel
    from cellwright.versioning import reproduce

    if owners == 0:
        return {}
    if not ws.panel(params.dataset).is_dir():
        reproduce(ws, params.dataset, on_line=lambda line: _stage(params.dataset, line))
    panel = Panel.open(ws.panel(params.dataset))
    shares = groups(panel.schema, params.federation.owners if owners is None else owners)
    return cut(panel, shares, folder(ws) / "panels" / params.dataset)


def _stage(dataset: str, line: str) -> None:
    if line.startswith("Running stage"):
        stage = line.split("'")[1].removeprefix("data/dvc.yaml:").partition("@")[0]
        typer.echo(f"data        {dataset}: {stage} …")


def _train(params: Params, address: str | None, dataset: str | None, owners: int | None) -> str:
    """The command that trains with what was started here."""
    given = ["federation.runtime=deployed"]
    given += [f"federation.owners={owners}"] if owners and owners != params.federation.owners else []
    given += [f"federation.address={address}"] if address else []
    return " ".join(["cellwright federate", *([f"--dataset {dataset}"] if dataset else []), *(f"--set {one}" for one in given)])


def _until_stopped(check: Callable[[], None]) -> None:
    """Look after what runs until Ctrl-C, which is how it is meant to end."""
    try:
        while True:
            check()
            time.sleep(1)
    except KeyboardInterrupt:
        typer.echo("stopping …")


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
