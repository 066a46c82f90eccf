"""What the commands share: the project's folder, the parameters, and how results are printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cellwright.params import Params
    from cellwright.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter.")]
Dataset = Annotated[str | None, typer.Option("--dataset", "-d", help="Data set of the catalogue; else that of params.yaml.")]
Run = Annotated[str | None, typer.Option("--run", "-r", help="Name of a run; else the newest.")]


def workspace() -> Workspace:
    """The project around the current folder."""
    from cellwright.workspace import Workspace, find_root

    return Workspace(find_root())


def parameters(ws: Workspace, overrides: list[str] | None, dataset: str | None = None) -> Params:
    """params.yaml with overrides; those of a data section are refused, since they make a data version.

    Raises:
        ParamsError: unknown key, or a data section.
    """
    from cellwright.params import load

    return load(ws.root / "params.yaml", [*(overrides or ()), *([f"dataset={dataset}"] if dataset else [])])


def show(result: Any, as_json: bool) -> None:
    """Print a result as JSON, or as a rich renderable."""
    if as_json:
        typer.echo(result if isinstance(result, str) else json.dumps(result, indent=2, default=str))
        return
    console().print(result)


def console() -> Any:
    """The terminal; 140 columns wide where it is a pipe, so that tables do not break."""
    from rich.console import Console

    wide = Console()
    return wide if wide.is_terminal else Console(width=140)
