"""Start a flow from the terminal: where Prefect keeps its state, which server it speaks to, and what it prints."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cellwright.workspace import Workspace


def run_benchmark(
    ws: Workspace, dataset: str, overrides: list[str], *, promote: bool, only_new: bool, fresh: bool, quiet: bool
) -> str:
    """Run the benchmark flow here, in this process; returns the run's name.

    Raises:
        CellwrightError: what stopped it.
    """
    prefect_environment(ws)
    from flows._catalogue import DataSet
    from flows.benchmark import benchmark

    if not quiet:
        speak()
    return benchmark(dataset=DataSet(dataset), promote=promote, only_new=only_new, fresh=fresh, overrides=overrides)


def run_federation(ws: Workspace, dataset: str, overrides: list[str], *, promote: bool, fresh: bool, quiet: bool) -> str:
    """Run the federate flow here, in this process; returns the run's name.

    Raises:
        CellwrightError: what stopped it.
    """
    prefect_environment(ws)
    from flows._catalogue import DataSet
    from flows.federate import federate

    if not quiet:
        speak()
    return federate(dataset=DataSet(dataset), promote=promote, fresh=fresh, overrides=overrides)


def run_kind(ws: Workspace, kind: str, dataset: str, overrides: list[str], *, fresh: bool, quiet: bool) -> str:
    """Run the flow of a vertical or a transfer federation here, in this process; returns the run's name.

    Raises:
        CellwrightError: what stopped it.
    """
    prefect_environment(ws)
    from flows._catalogue import DataSet
    from flows.federate_kinds import transfer, vertical

    if not quiet:
        speak()
    flow = {"vertical": vertical, "transfer": transfer}[kind]
    return flow(dataset=DataSet(dataset), fresh=fresh, overrides=overrides)


def prefect_environment(ws: Workspace) -> None:
    """Point flows and Prefect at this project, and at the server of `cellwright up` if that runs. Before Prefect's import."""
    from flows._cli.servers import running_server

    os.environ["CELLWRIGHT_ROOT"] = str(ws.root)  # flows look for the project around their own file otherwise
    os.environ.setdefault("PREFECT_HOME", str(ws.state / "prefect"))
    # The terminal shows our own lines; Prefect's go to its log, which the UI shows.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    if "PREFECT_API_URL" not in os.environ and (url := running_server(ws)):
        os.environ["PREFECT_API_URL"] = url


def speak() -> None:
    """Our own lines of flows and tasks go to the terminal."""
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: bool(getattr(record, "cellwright", False)))
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addHandler(handler)
    typer.echo("starting Prefect …", err=True)
