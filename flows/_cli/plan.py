"""`plan edge`: scale on paper, for the rates, edges and caches that an area's devices take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwright.errors import WrongUse
from flows._cli.common import Json, console, show

if TYPE_CHECKING:
    from cellwright.capacity.plan import Comparison, Plan

_ARRIVALS = ("at_once", "poisson", "diurnal", "burst")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Scale on paper.", no_args_is_help=True)
    group.callback()(_group)
    group.command("edge")(edge)
    app.add_typer(group, name="plan")


def _group() -> None:
    """Scale on paper: what a deployment takes, before there is one."""


def edge(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with a section `plan_edge`; none: the use case of 3GPP.")
    ] = None,
    area: Annotated[float | None, typer.Option(help="Area, km².")] = None,
    area_file: Annotated[Path | None, typer.Option(help="GeoJSON polygon of the area.")] = None,
    density: Annotated[float | None, typer.Option(help="Devices per km².")] = None,
    size: Annotated[float | None, typer.Option(help="Size of every model, bytes.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Time from request to last byte, s.")] = None,
    arrivals: Annotated[str | None, typer.Option(help=f"When devices ask: {', '.join(_ARRIVALS)}.")] = None,
    edges: Annotated[int | None, typer.Option(help="Edge servers; none: as many as needed.")] = None,
    lever: Annotated[
        list[str] | None,
        typer.Option(help="Lever to count on (several allowed): device_cache, delta, staggering, multicast, quantisation."),
    ] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Also simulate it, and print both side by side.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 1,
    max_requests: Annotated[int, typer.Option(min=1, help="Simulate so many edges as have this many requests.")] = 50_000,
    as_json: Json = False,
) -> None:
    """Required rate, cache, number of edges and who is served in time; and what each lever brings it down by."""
    from cellwright.capacity import config as settings
    from cellwright.capacity.plan import compare, plan

    if area is not None and area_file is not None:
        raise WrongUse("--area and --area-file both give the area; give one of them")
    given: dict[str, Any] = {
        "area_km2": area,
        "area_file": None if area_file is None else str(area_file),
        "devices_per_km2": density,
        "catalogue.size": None if size is None else {"kind": "fixed", "size_bytes": size},
        "deadline_s": deadline,
        "arrivals": None if arrivals is None else {"kind": arrivals},
        "network.edges": edges,
        "levers.use": lever or None,
    }
    over = {key: value for key, value in given.items() if value is not None}
    if area is not None:
        over["area_file"] = None
    read = settings.read(config, over)
    worked = plan(read)
    beside = compare(read, seed=seed, max_requests=max_requests) if simulate else None
    if as_json:
        from cellwright.capacity.show import as_dict

        show(as_dict(read, worked, beside), True)
        return
    _print(worked, beside)


def _print(worked: Plan, beside: Comparison | None) -> None:
    from cellwright.capacity import show as pages

    screen = console()
    for part in pages.tables(worked, beside):
        screen.print(part)
