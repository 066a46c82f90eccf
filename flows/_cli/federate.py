"""`federate`: train where the data may not move; the servers of a federation and its FMLMS are sub-commands."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwright.errors import CellwrightError
from flows._cli import federate_kinds, federate_up, federation_server
from flows._cli.common import Dataset, Json, Run, Set, parameters, show, workspace

if TYPE_CHECKING:
    from cellwright.federation.results import Federated, Part
    from cellwright.workspace import Workspace


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Federated learning under management (ITU-T M.3387).", invoke_without_command=True)
    group.callback()(federate)
    group.command("show")(show_)
    federate_up.add_to(group)
    federation_server.add_to(group)
    federate_kinds.add_to(group)
    app.add_typer(group, name="federate")


def federate(
    context: typer.Context,
    dataset: Dataset = None,
    rule: Annotated[str, typer.Option(help="Aggregation rule, or auto; else federation.rule.")] = "",
    model: Annotated[str, typer.Option(help="Network, or auto; else federation.model.")] = "",
    overrides: Set = None,
    mirror: Annotated[str | None, typer.Option(help="Folder that holds copies of the data sources.")] = None,
    promote: Annotated[bool, typer.Option(help="Let the winner become champion if it beats the present one.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start another run even if this one is finished.")] = False,
    as_json: Json = False,
) -> None:
    """Train federated, compare with each owner alone and with everyone's data, register and publish. Resumes what was interrupted."""
    if context.invoked_subcommand is not None:
        return
    ws = workspace()
    given = [
        *(overrides or []),
        *([f"federation.rule={rule}"] if rule else []),
        *([f"federation.model={model}"] if model else []),
    ]
    params = parameters(ws, given, dataset)
    if mirror:
        os.environ["CELLWRIGHT_MIRROR"] = os.path.abspath(mirror)  # noqa: PTH100 - resolve() would follow links
    from flows._cli.start import run_federation

    name = run_federation(ws, params.dataset, given, promote=promote, fresh=fresh, quiet=as_json)
    _shown(replace(ws, run=name), as_json)


def show_(
    run: Run = None,
    html: Annotated[Path | None, typer.Option(help="Also write it as a page of its own, whole in this one file.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a federation came to: owner by owner, or party by party, with training alone and on everyone's data beside it."""
    ws = workspace()
    kinds = federate_kinds.results(ws)
    newest = sorted([*_results(ws), *kinds], key=lambda p: p.stat().st_mtime)
    found = [path for path in newest if run is None or path.relative_to(ws.artifacts).parts[0] == run]
    if not found and run is None:
        raise CellwrightError("there is no federation yet; start one with `cellwright federate`")
    there = replace(ws, run=found[-1].relative_to(ws.artifacts).parts[0] if found else str(run))
    kind = kinds.get(found[-1]) if found else None
    if kind is not None:
        federate_kinds.shown(there, kind, as_json)
    else:
        _shown(there, as_json)
    if html is not None:
        federate_kinds.page(there, kind, html) if kind is not None else _page(there, html)


def _page(ws: Workspace, html: Path) -> None:
    from cellwright.panel import Panel
    from cellwright.report.federated import write_federation_page
    from cellwright.runs import params_of

    folder = next(path.parent for path in reversed(_results(ws)) if path.parents[2].name == ws.run)
    params = params_of(ws)
    schema = Panel.open(ws.panel(params.dataset)).schema
    units = {feature.name: feature.unit for feature in schema.features}
    unit = ", ".join(dict.fromkeys(units[target] for target in params.problem.targets or schema.targets))
    write_federation_page(folder, html, unit)


def _results(ws: Workspace) -> list[Any]:
    """federation.json files of all runs, oldest first."""
    return sorted(ws.artifacts.glob("*/candidates/*/federation.json"), key=lambda p: p.stat().st_mtime)


def _shown(ws: Workspace, as_json: bool) -> None:
    from cellwright.federation.results import Federated

    found = [Federated.read(path) for path in _results(ws) if path.parents[2].name == ws.run]
    if not found:
        raise CellwrightError(f"run {ws.run} holds no federation; `cellwright federate` makes one")
    if as_json:
        show(found[-1].model_dump_json(), True)
        return
    show(_table(found[-1], ws), False)


def _table(found: Federated, ws: Workspace) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from cellwright.steps.federate import sentence

    table = Table(box=None, pad_edge=False)
    for name in ("owner", "windows", "rounds", "MAE", "alone", "central", "contribution", "reward", "reliability", "kB up", "J"):
        table.add_column(name, justify="left" if name == "owner" else "right")
    for o in found.owners:
        numbers = (o.mae, o.mae_alone, o.mae_central, o.contribution, o.reward, o.reliability, o.up_bytes / 1000, o.energy_j)
        table.add_row(o.owner, str(o.examples), str(o.rounds), *(_number(n) for n in numbers))
    facts = [
        sentence(found),
        f"topology {found.topology.get('kind')}, version {found.topologies}; {found.up_bytes / 1e6:.2f} MB up, "
        f"{found.down_bytes / 1e6:.2f} MB down in the rounds; {found.train_s:.1f} of {found.wall_s:.1f} s in the rounds",
        *_everything(found),
    ]
    if found.audit_log:
        log = ws.candidate(found.key) / found.audit_log
        facts.append(f"audit log: cellwright audit verify {log.relative_to(ws.root)}")
    return Group(table, Text(), *(Text(line) for line in facts))


def _everything(found: Federated) -> list[str]:
    """Bytes, time and energy of all parts, the coordinator's and the auditor's among them."""
    carried = found.everything_bytes
    if carried is None:
        return []
    lines = [f"everything: {carried[0] / 1e6:.2f} MB up, {carried[1] / 1e6:.2f} MB down"]
    for p in (
        part for part in found.parts if part.up_bytes or part.down_bytes
    ):  # of a part that was left out there is nothing to say
        joules = f", {_number(p.energy_j)} J ({_roles(p)})" if p.energy_j is not None else ""
        lines.append(f"  {p.name}: {p.wall_s:.1f} s, {p.up_bytes / 1e6:.2f} MB up, {p.down_bytes / 1e6:.2f} MB down{joules}")
    return lines


def _roles(part: Part) -> str:
    roles = (
        ("owners", part.owners_energy_j, part.owners_energy_source),
        ("coordinator", part.coordinator_energy_j, part.energy_source),
        ("auditor", part.auditor_energy_j, part.energy_source),
    )
    return ", ".join(f"{role} {_number(joules)} {source}" for role, joules, source in roles if joules is not None)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
