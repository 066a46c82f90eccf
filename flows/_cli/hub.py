"""`hub model|upload|publish|place|area|edges|match|audit`: a tenant's view of a hub, over its API, with a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows._cli import hub_local
from flows._cli.common import Json, show

if TYPE_CHECKING:
    from cellwright.hub.client import HubClient
    from cellwright.hub.contract import Location

HUB = "http://127.0.0.1:8070"
Url = Annotated[str, typer.Option("--hub", envvar="CELLWRIGHT_HUB", help="Address of the hub.")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="File with the token; else $CELLWRIGHT_HUB_TOKEN.")]
Ca = Annotated[Path | None, typer.Option("--ca", help="Certificate authority (PEM) of a hub that serves over TLS.")]
Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[str, typer.Argument(help="Its version, like 1.2.0.")]
At = Annotated[tuple[float, float] | None, typer.Option("--at", help="Longitude and latitude, degrees.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The operator cloud's hub: models of tenants, placed at edges.", no_args_is_help=True)
    hub_local.add_to(group)
    models = typer.Typer(help="Models of the token's tenant.", no_args_is_help=True)
    models.command("list")(listed)
    models.command("share")(share)
    models.command("delete")(delete)
    group.add_typer(models, name="model")
    areas = typer.Typer(help="Areas (GeoJSON).", no_args_is_help=True)
    areas.command("put")(put_area)
    areas.command("list")(areas_listed)
    group.add_typer(areas, name="area")
    for name, command in (("upload", upload), ("publish", publish), ("unpublish", unpublish), ("place", place)):
        group.command(name)(command)
    for name, command in (("edges", edges), ("match", match), ("audit", audit), ("revoke-grants", revoke_grants)):
        group.command(name)(command)
    app.add_typer(group, name="hub")


def listed(hub: Url = HUB, token_file: TokenFile = None, ca: Ca = None, shared: bool = False, as_json: Json = False) -> None:
    """List models, with --shared those that others share."""
    with _client(hub, token_file, ca) as client:
        found = client.models(shared=shared)
    if as_json:
        show([model.model_dump(mode="json") for model in found], True)
        return
    for model in found:
        now = f"published {model.publication.version}" if model.publication else "not published"
        typer.echo(f"{model.tenant}/{model.name:<32} {now:<24} versions: {', '.join(model.versions) or 'none'}")


def share(model: Model, private: bool = False, hub: Url = HUB, token_file: TokenFile = None, ca: Ca = None) -> None:
    """Let all tenants see and place a model; with --private, no more."""
    from cellwright.hub.contract import ModelForm

    with _client(hub, token_file, ca) as client:
        now = client.model(model)
        said = ModelForm.model_validate(now.model_dump(include=set(ModelForm.model_fields)))
        changed = client.put_model(model, said.model_copy(update={"visibility": "private" if private else "shared"}))
    typer.echo(f"{changed.name} is {changed.visibility}")


def delete(
    model: Model,
    version: Annotated[str | None, typer.Option(help="This version only.")] = None,
    hub: Url = HUB,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Delete a model, or a version of it, that is not published."""
    with _client(hub, token_file, ca) as client:
        if version is None:
            client.delete_model(model)
        else:
            client.delete_release(model, version)
    typer.echo(f"deleted    {model}{f' {version}' if version else ''}")


def upload(
    file: Annotated[
        Path, typer.Argument(help="ONNX, safetensors, a tar of a signed OCI layout (modelpack), or anything (opaque).")
    ],
    model: Annotated[str, typer.Option(help="Model that it is a version of; made as needed.")],
    version: Annotated[str, typer.Option(help="Its version, like 1.2.0.")],
    file_format: Annotated[str, typer.Option("--format", help="onnx, safetensors, modelpack or opaque.")],
    task: Annotated[str | None, typer.Option(help="What it does, for matching: 'traffic forecast'.")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Its latency, ms.")] = None,
    error: Annotated[float | None, typer.Option(help="Its error.")] = None,
    error_unit: Annotated[str | None, typer.Option(help="The error's unit.")] = None,
    hub: Url = HUB,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Upload a version of a model in chunks. Resumes what broke off."""
    import hashlib

    from cellwright.errors import WrongUse
    from cellwright.hub.contract import UploadForm

    if not file.is_file():
        raise WrongUse(f"there is no file {file}")
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    figures = {"task": task, "latency_ms": latency_ms, "error": error, "error_unit": error_unit}
    form = hub_local.valid(
        UploadForm,
        model=model,
        version=version,
        format=file_format,
        bytes=file.stat().st_size,
        sha256=digest,
        figures=figures,
    )
    with _client(hub, token_file, ca) as client:
        release = client.upload(file, form)
    if as_json:
        show(release.model_dump(mode="json"), True)
        return
    typer.echo(f"{release.model} {release.version}: {release.format}, {release.bytes:,} bytes, {release.digest}")


def publish(
    model: Model,
    version: Version,
    weight: Annotated[list[str] | None, typer.Option(help="VERSION=SHARE of requests for another version; repeatable.")] = None,
    canary: Annotated[str | None, typer.Option(help="The version under trial, one of --weight.")] = None,
    hub: Url = HUB,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Make a version the one in use; the edges that shall hold it are told at once."""
    from cellwright.hub.contract import Publication

    weights = dict(_share(text) for text in weight or ())
    form = hub_local.valid(Publication, version=version, weights=weights, canary=canary)
    with _client(hub, token_file, ca) as client:
        done = client.publish(model, form)
    typer.echo(f"{model} {done.version} is published; edges: {', '.join(done.edges) or 'none yet'}")


def unpublish(model: Model, hub: Url = HUB, token_file: TokenFile = None, ca: Ca = None) -> None:
    """Take a model off all edges; its versions stay."""
    with _client(hub, token_file, ca) as client:
        client.unpublish(model)
    typer.echo(f"{model} is published no more")


def place(
    rule: Annotated[str, typer.Argument(help="Name of the rule.")],
    model: Model,
    area: Annotated[list[str] | None, typer.Option(help="Area; repeatable.")] = None,
    edge: Annotated[list[str] | None, typer.Option(help="Edge; repeatable.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="Service that it is for; repeatable; none: any.")] = None,
    user_class: Annotated[list[str] | None, typer.Option(help="User class that it is for; repeatable; none: any.")] = None,
    owner: Annotated[str | None, typer.Option(help="Tenant of a shared model.")] = None,
    priority: Annotated[int, typer.Option(help="The highest that fits a device wins.")] = 0,
    pinned: Annotated[bool, typer.Option("--pinned", help="Edges never evict it.")] = False,
    hub: Url = HUB,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Say where a model lies and whom it is for; with neither area nor edge, everywhere."""
    from cellwright.hub.contract import PlacementForm

    form = hub_local.valid(
        PlacementForm,
        model=model,
        owner=owner,
        areas=tuple(area or ()),
        edges=tuple(edge or ()),
        services=tuple(service or ()),
        user_classes=tuple(user_class or ()),
        priority=priority,
        pinned=pinned,
    )
    with _client(hub, token_file, ca) as client:
        client.place(rule, form)
    typer.echo(f"{rule}: {model} in {', '.join([*(area or ()), *(edge or ())]) or 'every edge'}")


def put_area(
    name: Annotated[str, typer.Argument(help="Name of the area.")],
    geojson: Annotated[Path, typer.Argument(help="File with a Polygon, MultiPolygon or Feature.")],
    hub: Url = HUB,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Make or change an area."""
    from cellwright.errors import WrongUse
    from cellwright.hub.contract import AreaForm

    try:
        geometry = json.loads(geojson.read_text())
    except (OSError, ValueError) as error:
        raise WrongUse(f"{geojson} cannot be read as GeoJSON ({error})") from None
    with _client(hub, token_file, ca) as client:
        client.put_area(name, hub_local.valid(AreaForm, geometry=geometry))
    typer.echo(f"area {name}")


def areas_listed(hub: Url = HUB, token_file: TokenFile = None, ca: Ca = None, as_json: Json = False) -> None:
    """List this tenant's areas and the operator's."""
    with _client(hub, token_file, ca) as client:
        found = client.areas()
    if as_json:
        show([area.model_dump(mode="json") for area in found], True)
        return
    for area in found:
        typer.echo(f"{area.tenant}/{area.name:<24} {area.geometry['type']}")


def edges(hub: Url = HUB, token_file: TokenFile = None, ca: Ca = None, as_json: Json = False) -> None:
    """List edges."""
    with _client(hub, token_file, ca) as client:
        found = client.edges()
    if as_json:
        show([edge.model_dump(mode="json") for edge in found], True)
        return
    for edge in found:
        place_ = f"{edge.location.longitude:.5f}, {edge.location.latitude:.5f}"
        typer.echo(
            f"{edge.name:<24} {'alive' if edge.alive else 'silent':<7} {edge.url:<40} at {place_}, revision {edge.revision}"
        )


def match(
    device: Annotated[str, typer.Argument(help="Name of the device.")],
    service: Annotated[str | None, typer.Option(help="Service.")] = None,
    user_class: Annotated[str | None, typer.Option(help="User class.")] = None,
    at: At = None,
    task: Annotated[str | None, typer.Option(help="By requirement: what the model must do.")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="At most, ms.")] = None,
    most_bytes: Annotated[int | None, typer.Option(help="At most, bytes.")] = None,
    hub: Url = HUB,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Ask which model a device needs here and now, and why."""
    from cellwright.hub.contract import MatchAsk, Requirements

    needs = None if task is None else hub_local.valid(Requirements, task=task, latency_ms=latency_ms, bytes=most_bytes)
    ask = hub_local.valid(
        MatchAsk, device=device, service=service, user_class=user_class, location=_location(at), requirements=needs
    )
    with _client(hub, token_file, ca) as client:
        found = client.match(ask)
    if as_json:
        show(found.model_dump(mode="json"), True)
        return
    typer.echo(f"{found.tenant}/{found.model} {found.version}: {found.format}, {found.bytes:,} bytes")
    typer.echo(f"why    {found.why}")
    for edge in found.edges:
        away = "" if edge.distance_m is None else f", {edge.distance_m / 1000:.1f} km"
        typer.echo(f"edge   {edge.name} {edge.url}{away}{', has it' if edge.holds else ''}")


def revoke_grants(
    grant: Annotated[str | None, typer.Option(help="This one only: its id (`id` among its claims).")] = None,
    grant_file: Annotated[Path | None, typer.Option("--grant-file", help="This one only: a file with the grant itself.")] = None,
    device: Annotated[str | None, typer.Option(help="Those of this device only.")] = None,
    hub: Url = HUB,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Take back what devices were given to fetch this tenant's models with: all of it, one grant, or a device's. Whose token is valid
    gets another."""
    from cellwright.errors import WrongUse
    from cellwright.hub.contract import GrantId, ShortName

    if sum(given is not None for given in (grant, grant_file, device)) > 1:
        raise WrongUse("--grant, --grant-file and --device are three ways to say which; give one, or none for all")
    id_ = _id_in(grant_file) if grant_file else grant
    with _client(hub, token_file, ca) as client:
        if id_ is not None:
            what = f"grant {client.revoke_grant(hub_local.checked(GrantId, id_, '--grant')).name} is"
        elif device is not None:
            what = f"grants of {client.revoke_device(hub_local.checked(ShortName, device, '--device')).name} from before now are"
        else:
            client.revoke_grants()
            what = "grants from before now are"
    typer.echo(f"{what} believed no more, from when an edge hears of it (connected ones: at once)")


def audit(
    verify: Annotated[bool, typer.Option("--verify", help="Check the whole chain (operator).")] = False,
    head: Annotated[
        str | None, typer.Option(help="Hash that --verify printed earlier and was kept elsewhere; the log must still have it.")
    ] = None,
    after: Annotated[int, typer.Option(help="Rows after this one.")] = -1,
    hub: Url = HUB,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Show the audit log, or check that nobody altered it."""
    from cellwright.errors import HubError

    with _client(hub, token_file, ca) as client:
        if verify or head:
            verdict = client.verify_audit(head)
            if not verdict.ok:
                raise HubError(f"the audit log was altered: {verdict.reason}")
            typer.echo(f"{verdict.records} rows in order; head {verdict.head}")
            return
        rows = client.audit(after=after, limit=1000)
    if as_json:
        show([row.model_dump(mode="json") for row in rows], True)
        return
    for row in rows:
        typer.echo(f"{row.index:>6} {row.tenant:<16} {row.who:<32} {row.action:<16} {row.subject} {row.detail}")


def _client(hub: str, token_file: Path | None, ca: Path | None) -> HubClient:
    import os

    from cellwright.errors import WrongUse
    from cellwright.hub.client import HubClient

    try:
        token = token_file.read_text().strip() if token_file else os.environ.get("CELLWRIGHT_HUB_TOKEN", "").strip()
    except OSError as error:
        raise WrongUse(f"cannot read the token in {token_file}: {error.strerror}") from None
    if not token:
        raise WrongUse("a token is needed: --token-file, or CELLWRIGHT_HUB_TOKEN; `cellwright hub token new` makes one")
    return HubClient(hub, token, ca=ca)


def _id_in(file: Path) -> str:
    """The id of a grant that was found somewhere. Raises WrongUse, GrantRefused."""
    from cellwright.errors import WrongUse
    from cellwright.hub.grant import read

    try:
        return read(file.read_text().strip()).id
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"cannot read the grant in {file}: {error}") from None


def _share(text: str) -> tuple[str, float]:
    from cellwright.errors import WrongUse

    version, _, share_ = text.partition("=")
    try:
        return version, float(share_)
    except ValueError:
        raise WrongUse(f"--weight is VERSION=SHARE, like 1.1.0=0.1, found '{text}'") from None


def _location(at: Any) -> Location | None:
    from cellwright.hub.contract import Location

    if at is None:
        return None
    found: Location = hub_local.valid(Location, longitude=at[0], latitude=at[1])
    return found
