"""`federate vertical`, `federate transfer`: parties with other features, owners of another data set."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows._cli.common import Dataset, Json, Set, parameters, show, workspace

if TYPE_CHECKING:
    from cellwright.workspace import Workspace

Mirror = Annotated[str | None, typer.Option("--mirror", help="Folder that holds copies of the data sources.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start another run even if this one is finished.")]


def add_to(group: typer.Typer) -> None:
    """Add the commands to the group `federate`."""
    group.command("vertical")(vertical)
    group.command("transfer")(transfer)


def vertical(
    dataset: Dataset = None, overrides: Set = None, mirror: Mirror = None, fresh: Fresh = False, as_json: Json = False
) -> None:
    """Train parties that hold different features of the same time (federation.vertical); only embeddings and gradients cross."""
    _run("vertical", dataset, overrides, mirror, fresh, as_json)


def transfer(
    dataset: Dataset = None,
    source: Annotated[
        str | None, typer.Option(help="Data set whose owners train the body; else federation.transfer.source.")
    ] = None,
    overrides: Set = None,
    mirror: Mirror = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train a network's body with one data set's owners, and go on with another's (federation.transfer); only weights cross."""
    given = [f"federation.transfer.source={source}"] if source else []
    _run("transfer", dataset, [*(overrides or []), *given], mirror, fresh, as_json)


def _run(kind: str, dataset: str | None, overrides: list[str] | None, mirror: str | None, fresh: bool, as_json: bool) -> None:
    from cellwright.catalogue import load_catalogue
    from cellwright.federation.alignment.asked import check_asked

    ws = workspace()
    params = parameters(ws, overrides, dataset)
    check_asked(params, kind, load_catalogue(ws.catalogue))  # told before anything heavy starts
    if mirror:
        os.environ["CELLWRIGHT_MIRROR"] = os.path.abspath(mirror)  # noqa: PTH100 - resolve() would follow links
    from flows._cli.start import run_kind

    name = run_kind(ws, kind, params.dataset, overrides or [], fresh=fresh, quiet=as_json)
    shown(replace(ws, run=name), kind, as_json)


def results(ws: Workspace) -> dict[Path, str]:
    """Results of all runs, each with its kind."""
    from cellwright.federation.alignment.told import FILES

    return {path: kind for kind, name in FILES.items() for path in ws.artifacts.glob(f"*/{name}")}


def page(ws: Workspace, kind: str, html: Path) -> None:
    """Write what came of it as a page of its own."""
    from cellwright.report.kinds import write_kind_page

    write_kind_page(ws, kind, html)


def shown(ws: Workspace, kind: str, as_json: bool) -> None:
    """Show what came of it, and how its audit log is verified."""
    from cellwright.federation.alignment.told import read, rows, sentence

    found = read(ws, kind)
    if as_json:
        show(found.model_dump_json(), True)
        return
    log = [] if found.audit is None else [f"audit log: cellwright audit verify {ws.run} --head {found.audit.head}"]
    show(_table(rows(ws, kind), [sentence(ws, kind), *log]), False)


def _table(lines: list[dict[str, Any]], told: list[str]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(lines[0]):
        table.add_column(name, justify="right" if i else "left")
    for line in lines:
        table.add_row(*(str(value) for value in line.values()))
    return Group(table, Text(), *(Text(line) for line in told))
