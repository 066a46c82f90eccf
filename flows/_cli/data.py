"""`data`: the data sets of the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows._cli.common import Json, console, show, workspace

if TYPE_CHECKING:
    from cellwright.catalogue import Entry
    from cellwright.workspace import Workspace

Name = Annotated[str, typer.Argument(help="Data set of the catalogue.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The data sets: list, pull, describe, check.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("pull")(pull)
    group.command("describe")(describe)
    group.command("check")(check)
    app.add_typer(group, name="data")


def list_(as_json: Json = False) -> None:
    """Every data set of the catalogue, and what is here of it."""
    from cellwright.catalogue import load_catalogue

    ws = workspace()
    catalogue = load_catalogue(ws.catalogue)
    rows = [_row(ws, catalogue.entry(name)) for name in catalogue.names]
    show(rows if as_json else _table(rows), as_json)


def pull(
    name: Name,
    mirror: Annotated[str | None, typer.Option(help="Folder that holds copies of the sources.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch the sources of a data set: streamed, resumed after a break, checked by SHA-256."""
    import os
    from pathlib import Path

    from cellwright.catalogue import load_catalogue
    from cellwright.data import fetch
    from cellwright.errors import WrongUse
    from cellwright.params import load

    ws = workspace()
    entry = load_catalogue(ws.catalogue).entry(name)
    if not entry.sources:
        kind = "generated" if entry.generator else f"read from {entry.files}"
        raise WrongUse(f"{name} has nothing to pull: it is {kind}; `cellwright run --dataset {name}` makes it")
    given = mirror or os.environ.get("CELLWRIGHT_MIRROR")
    timeout_s = load(ws.root / "params.yaml").ingest.timeout_s
    with _bar(as_json) as progress:
        paths = fetch.pull(entry, ws, Path(given) if given else None, progress, timeout_s=timeout_s)
    show([str(p) for p in paths] if as_json else "\n".join(f"{p.relative_to(ws.root)}  checked" for p in paths), as_json)


def describe(name: Name, as_json: Json = False) -> None:
    """Everything the catalogue and the panel say of a data set."""
    from cellwright.catalogue import load_catalogue

    ws = workspace()
    entry = load_catalogue(ws.catalogue).entry(name)
    found = entry.model_dump(mode="json", exclude_defaults=True) | {"panel": _panel(ws, name)}
    if as_json:
        show(found, True)
        return
    import yaml

    console().print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100), markup=False, highlight=False)


def check(
    name: Name,
    mirror: Annotated[str | None, typer.Option(help="Folder that holds copies of the sources.")] = None,
    as_json: Json = False,
) -> None:
    """Ingest, normalise and validate a data set, as far as that is not up to date, and show the verdict.

    Files of your own are looked at for news first.
    """
    import os

    from cellwright import versioning
    from cellwright.catalogue import load_catalogue
    from cellwright.results import Validated
    from cellwright.steps.ingest import news

    ws = workspace()
    entry = load_catalogue(ws.catalogue).entry(name)
    if mirror:
        os.environ["CELLWRIGHT_MIRROR"] = os.path.abspath(mirror)  # noqa: PTH100 - resolve() would follow links
    on_line = None if as_json else _stage
    if news(ws, entry):
        versioning.refresh(ws, name, on_line=on_line)
    versioning.reproduce(ws, name, on_line=on_line)
    version = versioning.data_version(ws, name)
    found = Validated.read(ws.validation(name) / "results.json")
    said = f"{found}; version {version.hash}; {ws.validation(name) / 'index.html'}"
    show({"version": version.model_dump(), "results": found.model_dump()} if as_json else said, as_json)


def _stage(line: str) -> None:
    if line.startswith("Running stage"):
        console().print(line.split("'")[1].removeprefix("data/dvc.yaml:"), style="dim")


def _row(ws: Workspace, entry: Entry) -> dict[str, Any]:
    panel = _panel(ws, entry.name)
    origin = "generated" if entry.generator else (entry.files or f"{len(entry.sources)} files")
    return {"name": entry.name, "title": entry.title, "licence": entry.licence, "from": origin, "panel": panel}


def _panel(ws: Workspace, name: str) -> dict[str, Any] | None:
    from cellwright.errors import FormatError
    from cellwright.panel import Panel

    try:
        schema = Panel.open(ws.panel(name)).schema
    except FormatError:
        return None
    return {"rows": schema.rows, "sites": len(schema.sites), "features": len(schema.features), "cadence_s": schema.cadence_s}


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "what", "licence", "from", "panel here"):
        table.add_column(column, overflow="fold")
    for row in rows:
        panel = row["panel"]
        here = f"{panel['rows']:,} × {panel['sites']:,} × {panel['features']}" if panel else "–"
        table.add_row(row["name"], row["title"], row["licence"], row["from"], here)
    return table


def _bar(quiet: bool) -> Any:
    """A progress bar on the terminal, as the function that `pull` reports to."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    @contextmanager
    def bar() -> Any:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=quiet) as progress:
            tasks: dict[str, Any] = {}

            def report(name: str, done: int, total: int | None) -> None:
                if name not in tasks:
                    tasks[name] = progress.add_task(name, total=total)
                progress.update(tasks[name], completed=done, total=total)

            yield report

    return bar()
