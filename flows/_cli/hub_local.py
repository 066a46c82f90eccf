"""`hub serve|init|tenant|token`: the hub on the machine that keeps its state; these need no token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows._cli.common import Json, Set, parameters, show, workspace

if TYPE_CHECKING:
    from cellwright.hub.contract import Quota
    from cellwright.hub.service import Hub

TOGETHER = 4_096  # connections: each edge keeps one while it waits for a change
Database = Annotated[str | None, typer.Option("--database", help="SQLAlchemy URL of the hub's state; else hub.database.")]
Out = Annotated[Path | None, typer.Option("--out", help="File for the token, for its owner's eyes only; else it is printed.")]
Tenant = Annotated[str, typer.Argument(help="Name of the tenant: a-z, 0-9 and -.")]


def add_to(group: typer.Typer) -> None:
    """Add the commands to the group `hub`."""
    group.command("serve")(serve)
    group.command("init")(init)
    tenants = typer.Typer(help="Tenants and their quotas.", no_args_is_help=True)
    tenants.command("put")(put)
    tenants.command("list")(listed)
    tenants.command("delete")(delete)
    group.add_typer(tenants, name="tenant")
    tokens = typer.Typer(help="Tokens of people, edges and devices.", no_args_is_help=True)
    tokens.command("new")(new)
    tokens.command("list")(tokens_listed)
    tokens.command("revoke")(revoke)
    group.add_typer(tokens, name="token")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8070,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM); needed on an address that others reach.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve to other machines without TLS.")] = False,
    database: Database = None,
    blobs: Annotated[str | None, typer.Option(help="Folder or fsspec URL of the models' bytes; else hub.blobs.")] = None,
    overrides: Set = None,
) -> None:
    """Keep models of tenants, place them at edges and match devices with them, until Ctrl-C. OpenAPI at /openapi.json."""
    from cellwright.hub.serve import serve as run
    from cellwright.web.running import Listening

    with opened(database, blobs, overrides) as hub:
        run(
            hub,
            Listening(host, port, tls_cert, tls_key, insecure, together=TOGETHER),
            on_ready=lambda url: typer.echo(f"hub on {url}: /v1/models, /v1/uploads, /v1/edges, /openapi.json; Ctrl-C stops it"),
        )


def init(out: Out = None, database: Database = None) -> None:
    """Make the hub's state and a token of the operator; it cannot be read again."""
    from cellwright.hub.contract import OPERATOR, TokenForm
    from cellwright.hub.core import LOCAL

    with opened(database) as hub:
        token = hub.new_token(LOCAL, OPERATOR, TokenForm(name="operator", scopes=("operator",)))
        typer.echo(f"state       {hub.folder}", err=True)
        typer.echo(f"public key  {hub.folder / 'keys' / 'signing.pub'}", err=True)
        _tell(token.token, out)


def put(
    tenant: Tenant,
    title: Annotated[str, typer.Option(help="Its name, for people.")] = "",
    gigabytes: Annotated[float | None, typer.Option(help="Most of its models together, GB (10^9 bytes).")] = None,
    models: Annotated[int | None, typer.Option(help="Most models.")] = None,
    uploads: Annotated[int | None, typer.Option(help="Most uploads open at once.")] = None,
    requests: Annotated[int | None, typer.Option(help="Most requests a minute.")] = None,
    database: Database = None,
) -> None:
    """Make or change a tenant; what is not given is the default."""
    from cellwright.hub.contract import TenantForm
    from cellwright.hub.core import LOCAL

    with opened(database) as hub:
        made = hub.put_tenant(
            LOCAL, checked_name(tenant), TenantForm(title=title, quota=_quota(gigabytes, models, uploads, requests))
        )
    typer.echo(f"{made.name}: {_quota_words(made.quota)}")


def listed(database: Database = None, as_json: Json = False) -> None:
    """List tenants, their quotas and what they use."""
    with opened(database) as hub:
        found = hub.tenants()
    if as_json:
        show([tenant.model_dump(mode="json") for tenant in found], True)
        return
    for tenant in found:
        used = tenant.usage
        typer.echo(f"{tenant.name:<24} {used.models} models, {used.bytes / 1e9:.3f} GB of {_quota_words(tenant.quota)}")


def delete(tenant: Tenant, database: Database = None) -> None:
    """Delete a tenant that has no models."""
    from cellwright.hub.core import LOCAL

    with opened(database) as hub:
        hub.delete_tenant(LOCAL, tenant)
    typer.echo(f"deleted    {tenant}")


def new(
    tenant: Tenant,
    name: Annotated[str, typer.Argument(help="Person, edge or device that it stands for.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="models:read, models:write, placement:write, publish, audit:read, metrics:read, edge, device, truth or operator; "
            "repeatable."
        ),
    ],
    days: Annotated[float | None, typer.Option(help="Days until it expires; none: when it is revoked.")] = None,
    out: Out = None,
    database: Database = None,
) -> None:
    """Make a token; it cannot be read again."""
    from cellwright.hub.contract import TokenForm
    from cellwright.hub.core import LOCAL

    form = valid(TokenForm, name=name, scopes=tuple(scope), lifetime_s=None if days is None else days * 86_400)
    with opened(database) as hub:
        _tell(hub.new_token(LOCAL, tenant, form).token, out)


def tokens_listed(tenant: Tenant, database: Database = None, as_json: Json = False) -> None:
    """List a tenant's tokens, without their secrets."""
    with opened(database) as hub:
        found = hub.tokens(tenant)
    if as_json:
        show([token.model_dump(mode="json") for token in found], True)
        return
    for token in found:
        typer.echo(f"{token.id}  {token.name:<20} {', '.join(token.scopes)}{'  revoked' if token.revoked_s else ''}")


def revoke(
    tenant: Tenant,
    token: Annotated[str, typer.Argument(help="Id of a token, or the name whose tokens are all revoked.")],
    database: Database = None,
) -> None:
    """Revoke tokens; from now on they are refused."""
    from cellwright.hub.core import LOCAL

    with opened(database) as hub:
        for gone in hub.revoke_token(LOCAL, tenant, token):
            typer.echo(f"revoked    {gone.id}  {gone.name}")


def opened(database: str | None = None, blobs: str | None = None, overrides: list[str] | None = None) -> Hub:
    """The project's hub, as params.yaml has it."""
    from cellwright.hub.core import Settings
    from cellwright.hub.service import open_hub

    ws = workspace()
    given = parameters(ws, overrides).hub
    settings = Settings(
        upload_lifetime_s=given.upload_lifetime_h * 3600,
        file_bytes=given.file_bytes,
        alive_s=given.alive_s,
        grant_lifetime_s=given.grant_lifetime_s,
        retention_s=given.retention_days * 86_400,
    )
    return open_hub(ws.hub, database=database or given.database, blobs=blobs or given.blobs, settings=settings)


def valid(form: Any, **fields: Any) -> Any:
    """A form of the hub's contract from what was typed. Raises WrongUse."""
    from pydantic import ValidationError

    from cellwright.errors import WrongUse

    try:
        return form(**fields)
    except ValidationError as error:
        raise WrongUse("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from None


def checked(kind: Any, value: str, option: str) -> str:
    """A name of the hub's contract from what was typed. Raises WrongUse."""
    from pydantic import TypeAdapter, ValidationError

    from cellwright.errors import WrongUse

    try:
        return str(TypeAdapter(kind).validate_python(value))
    except ValidationError as error:
        raise WrongUse(f"{option}: {error.errors()[0]['msg']}") from None


def _tell(token: str, out: Path | None) -> None:
    """Print a token, or write it to a file that its owner alone can read."""
    from cellwright.files import write_bytes

    if out is None:
        typer.echo(token)
        return
    write_bytes(out, f"{token}\n".encode(), mode=0o600)
    typer.echo(f"token       {out}", err=True)


def checked_name(tenant: str) -> str:
    """A tenant's name as it must be. Raises WrongUse."""
    from cellwright.hub.contract import Tenant as Form

    return str(valid(Form, name=tenant, created_s=0, usage={"bytes": 0, "models": 0, "releases": 0, "uploads": 0}).name)


def _quota(gigabytes: float | None, models: int | None, uploads: int | None, requests: int | None) -> Quota:
    from cellwright.hub.contract import Quota

    given = {
        "bytes": None if gigabytes is None else int(gigabytes * 1e9),
        "models": models,
        "uploads": uploads,
        "requests_per_minute": requests,
    }
    found: Quota = valid(Quota, **{key: value for key, value in given.items() if value is not None})
    return found


def _quota_words(quota: Quota) -> str:
    return f"{quota.bytes / 1e9:.3f} GB, {quota.models} models, {quota.uploads} uploads, {quota.requests_per_minute} requests/min"
