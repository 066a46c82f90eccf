"""The `cellwright` command. It starts flows, so it lives beside them; heavy libraries are imported only where they are used.

Exit codes: 0 done, 1 the job failed, 2 wrong use, 130 stopped by Ctrl-C (the same command resumes).
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from cellwright import __version__, interruption
from cellwright.errors import CellwrightError
from cellwright.processes import obey_parent
from cellwright.training.stopping import Stopped
from flows._cli import (
    audit,
    champion,
    data,
    doctor,
    edge,
    federate,
    hub,
    models,
    plan,
    qos,
    replayable,
    rollout,
    run,
    servers,
    table,
)

app = typer.Typer(
    name="cellwright",
    help="Keeps the best AI model in every part of a mobile network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
run.add_to(app)
replayable.add_to(app)
table.add_to(app)
federate.add_to(app)
audit.add_to(app)
champion.add_to(app)
data.add_to(app)
models.add_to(app)
edge.add_to(app)
rollout.add_to(app)
hub.add_to(app)
qos.add_to(app)
plan.add_to(app)
servers.add_to(app)
doctor.add_to(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        typer.echo(f"cellwright {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; an error of ours is one line on stderr, never a traceback."""
    obey_parent()
    interruption.heed()
    try:
        app()
    except CellwrightError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Stopped:  # the interruption was lost, but a thread saw that it was asked for
        _stopped()
    except SystemExit as ended:
        # what typer makes of a KeyboardInterrupt, or one that was lost after the last step
        if ended.code == interruption.STOPPED or (not ended.code and interruption.asked()):
            _stopped()
        raise


def _stopped() -> NoReturn:
    typer.echo(interruption.SAID, err=True)
    sys.exit(interruption.STOPPED)


if __name__ == "__main__":
    main()
