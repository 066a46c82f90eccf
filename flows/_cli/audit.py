"""`audit`: the auditor's log of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows._cli.common import Json, show

Log = Annotated[
    Path, typer.Argument(metavar="LOG", help="The audit log of a federation (audit.jsonl in its folder), or a run's name.")
]
_ENDED_WRONG = 1


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The auditor's log of a federation.", no_args_is_help=True)
    group.command("verify")(verify)
    group.command("show")(show_)
    app.add_typer(group, name="audit")


def verify(
    log: Log,
    key: Annotated[str | None, typer.Option(help="Public key that must have signed the log: hex, or a file in PEM.")] = None,
    head: Annotated[str | None, typer.Option(help="Hash that a record must have (audit_head of federation.json).")] = None,
    against: Annotated[
        Path | None, typer.Option(help="The auditor's own log, which must say the same of every message.", metavar="LOG")
    ] = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="The training has ended: the log must be complete, and signed as such.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find any altered, removed or reordered record, and an end that was cut off. Exit code 0: intact; 1: not."""
    from dataclasses import asdict

    from cellwright.federation.audit.chain import verify_log
    from cellwright.federation.audit.comparing import compared

    log = _found(log)
    found = verify_log(log, None if key is None else _public(key), head=head, closed=closed)
    if against is not None and found.ok:
        found = compared(found, log, against)
    if as_json:
        show(asdict(found), as_json)
    else:
        typer.echo(f"intact: {found.summary}" if found.ok else f"not intact: {found.summary}", err=not found.ok)
    if not found.ok:
        raise typer.Exit(_ENDED_WRONG)


def show_(
    log: Log,
    node: Annotated[str | None, typer.Option(help="Only messages of this node.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what was not accepted.")] = False,
    last: Annotated[int, typer.Option(min=1, help="So many records at most, the newest.")] = 50,
    as_json: Json = False,
) -> None:
    """What the log says of every message, as it stands; `verify` says whether it can be believed."""
    from collections import deque

    from cellwright.errors import FederationError
    from cellwright.federation.audit.chain import records

    log = _found(log)
    if not log.is_file():
        raise FederationError(f"there is no audit log {log}; a federation writes one into its folder if federation.audit is true")
    wanted = (
        row
        for row in records(log)
        if (node is None or row["node"] == node) and (not refused or row["verdict"] not in ("accepted", "sent"))
    )
    rows = list(deque(wanted, maxlen=last))
    show(rows if as_json else _table(rows), as_json)


def _found(log: Path) -> Path:
    """The log itself, or the one of the run of that name.

    Raises:
        WrongUse: the run has several.
    """
    from cellwright.errors import WrongUse
    from flows._cli.common import workspace

    if log.exists() or len(log.parts) != 1 or log.suffix == ".jsonl":
        return log
    run = workspace().artifacts / log
    if not run.is_dir():
        return log
    found = sorted(run.rglob("audit.jsonl"))
    if len(found) > 1:
        raise WrongUse(f"run {log} has {len(found)} audit logs; name one: {', '.join(map(str, found))}")
    return found[0] if found else run / "audit.jsonl"


def _table(rows: list[dict[str, Any]]) -> Any:
    from datetime import UTC, datetime

    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("record", "time (UTC)", "round", "kind", "node", "verdict", "rule"):
        table.add_column(name, no_wrap=True)
    table.add_column("reason", style="dim")
    for row in rows:
        moment = f"{datetime.fromtimestamp(row['time'], UTC):%Y-%m-%d %H:%M:%S}"
        texts = (escape(str(row[name])) for name in ("kind", "node", "verdict", "rule", "reason"))
        table.add_row(str(row["index"]), moment, str(row["round"]), *texts)
    return table


def _public(key: str) -> str | bytes:
    """A key given as hex, or as a PEM file."""
    from cellwright.bundle.keys import read_public
    from cellwright.errors import WrongUse

    if Path(key).is_file():
        return read_public(Path(key)).public_bytes_raw()
    if len(key) == 64 and all(c in "0123456789abcdefABCDEF" for c in key):
        return key
    raise WrongUse(f"--key: expected 64 characters of hex or a file in PEM, found {key[:80]!r}")
