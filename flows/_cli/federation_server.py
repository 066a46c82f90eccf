"""`federate serve` and `federate token`: the management system (FMLMS) as an HTTP API, and who may ask it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows._cli.common import Dataset, Json, parameters, show, workspace

if TYPE_CHECKING:
    from cellwright.federation.management.service import Fmlms

Database = Annotated[
    str | None, typer.Option("--database", help="SQLAlchemy URL of the FMLMS's state; else federation.database.")
]
Rules = Annotated[
    Path | None, typer.Option("--rules", help="Security rules (YAML): least security and reliability of each role.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group `federate`."""
    app.command("serve")(serve)
    tokens = typer.Typer(help="Tokens of clients, nodes and operators.", no_args_is_help=True)
    tokens.command("new")(new)
    tokens.command("revoke")(revoke)
    tokens.command("list")(listed)
    app.add_typer(tokens, name="token")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
    cert: Annotated[Path | None, typer.Option(help="Certificate (PEM); needed on an address that others reach.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    silent_s: Annotated[float, typer.Option(help="A node that was not heard of for longer is taken as dead, seconds.")] = 90,
    rules: Rules = None,
    dataset: Dataset = None,
    database: Database = None,
) -> None:
    """Answer clients (interface 1) and nodes (interface 2) until Ctrl-C."""
    from cellwright.federation.management.serve import serve as run

    with _fmlms(database, dataset, rules, silent_s) as fmlms:
        run(
            fmlms,
            host,
            port,
            certificate=cert,
            key=key,
            on_ready=lambda url: typer.echo(f"FMLMS on {url}: /v1/requests, /v1/nodes, /openapi.json; Ctrl-C stops it"),
        )


def new(
    name: Annotated[str, typer.Argument(help="Name of the client, node or operator that it stands for.")],
    scope: Annotated[str, typer.Option(help="client, node or operator.")] = "client",
    role: Annotated[list[str] | None, typer.Option(help="Role that a node may take; data_owner if none is named.")] = None,
    security: Annotated[int, typer.Option(help="Highest security level that a node may claim.")] = 1,
    dataset: Dataset = None,
    database: Database = None,
) -> None:
    """Make a token and print it; it cannot be read again."""
    from pydantic import ValidationError

    from cellwright.errors import WrongUse
    from cellwright.federation.management.tokens import Ceiling, scope_of

    try:
        ceiling = Ceiling.model_validate({"roles": role or ["data_owner"], "security": security})
        with _fmlms(database, dataset) as fmlms:
            typer.echo(fmlms.new_token(scope_of(scope), name, ceiling=ceiling))
    except ValidationError as error:
        raise WrongUse("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from None


def revoke(
    token: Annotated[str, typer.Argument(help="Id of a token, or the name whose tokens are all revoked.")],
    dataset: Dataset = None,
    database: Database = None,
) -> None:
    """Revoke tokens; from now on they are refused."""
    with _fmlms(database, dataset) as fmlms:
        for gone in fmlms.revoke_token(token):
            typer.echo(f"revoked    {gone.id}  {gone.scope} {gone.name}")


def listed(dataset: Dataset = None, database: Database = None, as_json: Json = False) -> None:
    """List tokens, without their secrets."""
    with _fmlms(database, dataset) as fmlms:
        found = fmlms.tokens()
    if as_json:
        show([token.model_dump(mode="json") for token in found], True)
        return
    for token in found:
        typer.echo(f"{token.id}  {token.scope:<8}  {token.name}{'  revoked' if token.revoked else ''}")


def _fmlms(database: str | None, dataset: str | None = None, rules: Path | None = None, silent_s: float | None = None) -> Fmlms:
    from cellwright.federation.management.opening import open_fmlms
    from cellwright.federation.management.permissions import rules_from

    ws = workspace()
    return open_fmlms(ws, parameters(ws, None, dataset), database=database, rules=rules_from(rules), silent_s=silent_s)
