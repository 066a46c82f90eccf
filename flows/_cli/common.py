"""What the commands share: the project's folder, the parameters, and how results are printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwright.errors import ParamsError

if TYPE_CHECKING:
    from cellwright.params import Params
    from cellwright.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a parameter.")]
Dataset = Annotated[str | None, typer.Option("--dataset", "-d", help="Data set of the catalogue; else that of params.yaml.")]
Run = Annotated[str | None, typer.Option("--run", "-r", help="Name of a run; else the newest.")]

_DATA_SECTIONS = ("ingest", "normalise", "validate")


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

    given = list(overrides or ())
    for item in given:
        section, _, key = item.partition("=")[0].partition(".")
        if section in _DATA_SECTIONS:
            line = _line_of(ws.root / "params.yaml", section, key)
            raise ParamsError(
                f"--set {item}: '{section}' makes a data version, which DVC must see change; "
                f"edit params.yaml, line {line}, instead"
            )
    return load(ws.root / "params.yaml", given + ([f"dataset={dataset}"] if dataset else []))


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


def _line_of(path: Path, section: str, key: str) -> str:
    lines = path.read_text().splitlines()
    top = next((i for i, line in enumerate(lines) if re.match(rf"{section}\s*:", line)), None)
    if top is None:
        return f"{len(lines) + 1} (a new section '{section}:')"
    for i in range(top + 1, len(lines)):
        if lines[i] and not lines[i][0].isspace():
            break
        if re.match(rf"\s+{re.escape(key)}\s*:", lines[i]):
            return str(i + 1)
    return f"{top + 2} (a new key '{key}:')"
