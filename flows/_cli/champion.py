"""`champion`: who serves, and who served before."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows._cli.common import Json, show, workspace

if TYPE_CHECKING:
    from cellwright.registry.champions import Champion

Name = Annotated[str, typer.Argument(help="Registered model; `cellwright champion list` shows them.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Who serves: list, promote, roll back.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("promote")(promote)
    group.command("rollback")(rollback)
    app.add_typer(group, name="champion")


def list_(as_json: Json = False) -> None:
    """Every registered model with its champion."""
    from cellwright.registry.champions import list_champions

    found = list_champions(workspace())
    show([_plain(c) for c in found] if as_json else _table(found), as_json)


def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="Version number in the registry.")],
    publish: Annotated[bool, typer.Option(help="Also publish its bundle to the edge.")] = True,
    as_json: Json = False,
) -> None:
    """Make a version the champion, whatever its KPIs, and publish its bundle."""
    from cellwright.registry.champions import promote as crown

    _done(crown(workspace(), name, version), publish, as_json)


def rollback(
    name: Name, publish: Annotated[bool, typer.Option(help="Also publish its bundle to the edge.")] = True, as_json: Json = False
) -> None:
    """Make the champion before the present one champion again, and publish its bundle."""
    from cellwright.registry.champions import rollback as step_back

    _done(step_back(workspace(), name), publish, as_json)


def _done(champion: Champion, publish: bool, as_json: bool) -> None:
    ws = workspace()
    said = f"{champion.model_name}: {champion.semantic} ({champion.model}, version {champion.version}) is champion"
    if publish:
        from cellwright.bundle.store import serve_version

        said += f"; the edge serves {serve_version(ws.published, champion.model_name, champion.semantic or '')}"
    show(_plain(champion) if as_json else said, as_json)


def _plain(champion: Champion) -> dict[str, Any]:
    return asdict(champion)


def _table(champions: tuple[Champion, ...]) -> Any:
    from rich.table import Table

    if not champions:
        return "no model is registered yet; `cellwright run` registers the first"
    table = Table(box=None, pad_edge=False)
    for column in ("model", "champion", "network", "since", "test MAE", "training energy", "challenger", "versions"):
        table.add_column(column, overflow="fold")
    for c in champions:
        champion = f"{c.semantic} (version {c.version})" if c.version else "none"
        cells = (c.model_name, champion, c.model, c.since, c.test_mae, c.train_energy, c.challenger, str(c.versions))
        table.add_row(*(str(cell or "–") for cell in cells))
    return table
