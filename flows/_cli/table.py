"""`table`: every model of a recipe on each of its data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows._cli.common import console, workspace


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("table")(table)


def table(
    recipe: Annotated[str, typer.Argument(help="Recipe: models, data sets and seeds.")] = "benchmarks/recipes/zoo.yaml",
    mirror: Annotated[str | None, typer.Option(help="Folder that holds copies of the data sources.")] = None,
    results: Annotated[str, typer.Option(help="Folder that takes the table, as Markdown and as JSON.")] = "benchmarks/results",
) -> None:
    """Train and score every model of a recipe with several seeds, and write the table. Resumes what was interrupted."""
    ws = workspace()
    if mirror:
        os.environ["CELLWRIGHT_MIRROR"] = os.path.abspath(mirror)  # noqa: PTH100 - resolve() would follow links
    from cellwright.table import recipe as recipes

    for part in recipes.read(ws.root / recipe).parts:  # a wrong recipe is told before anything heavy starts
        recipes.params_of(part, ws.root, part.seeds[0])
    from flows._cli.start import prefect_environment, speak

    prefect_environment(ws)
    from flows.table import table as flow

    speak()
    path = flow(recipe=recipe, results=results)
    from cellwright.results import ZooTable
    from cellwright.table.markdown import terminal

    console().print(terminal(ZooTable.read(Path(path).with_suffix(".json"))))
    console().print(f"\nThe whole table: {path}")
