"""A plan for people (tables) and for programs (JSON)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cellwright.capacity.cases import AREA_TRAFFIC_IMT2020_BIT_S_KM2, DENSITIES, DOWNLOADS
from cellwright.capacity.config import LEVERS, PlanEdge
from cellwright.capacity.plan import Comparison, Need, Plan

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_QUANTILES = (0.5, 0.9, 0.99)
_A = {"edge": "an edge", "cell": "a cell"}


def as_dict(config: PlanEdge, worked: Plan, beside: Comparison | None) -> dict[str, Any]:
    """Everything in SI units, with the configuration it was worked out for; what is infinite is null."""
    found: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "plan": asdict(worked),
        "cases": {
            "densities": [asdict(case) | {"bit_s_km2": case.bit_s_km2} for case in DENSITIES],
            "downloads": [asdict(case) | {"bit_s": case.bit_s} for case in DOWNLOADS],
            "imt2020_area_traffic_bit_s_km2": AREA_TRAFFIC_IMT2020_BIT_S_KM2,
        },
        "simulation": None if beside is None else _compared(beside),
    }
    return dict(_finite(found))


def _compared(beside: Comparison) -> dict[str, Any]:
    done = beside.simulated
    return {
        "requests": done.requests,
        "edges": done.edges,
        "formula": {
            "in_time": beside.in_time,
            "peak_bit_s": beside.peak_bit_s,
            "peak_bound_bit_s": beside.bound_bit_s,
            "hit_rate": beside.hit_rate,
        },
        "simulated": {"in_time": done.in_time, "peak_bit_s": done.peak_bit_s, "hit_rate": done.hit_rate},
        "busiest_link_bit_s": done.busiest_link_bit_s,
        "duration_s": {f"p{100 * level:g}": done.quantile_s(level) for level in _QUANTILES},
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tables(worked: Plan, beside: Comparison | None) -> Iterator[Any]:
    """The plan, the levers, what 3GPP asks for, and the simulation where there is one."""
    yield _plan(worked)
    yield _levers(worked)
    yield _cases()
    if beside is not None:
        yield _simulation(beside)


def _plan(worked: Plan) -> Any:
    table = _table(f"{_number(worked.requests)} requests on {_number(worked.area_km2)} km², each in {worked.deadline_s:g} s")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("per km²", justify="right")
    table.add_column("note", style="dim")
    need, plain = worked.need, worked.plain
    at_once = worked.at_once_bit_s_km2
    table.add_row(
        "all at once", rate(at_once * worked.area_km2), rate(at_once), "density × mean size × 8 / deadline, nothing spared"
    )
    table.add_row("peak rate, no lever", rate(plain.peak_bit_s), rate(plain.peak_bit_s_km2), "with these arrivals")
    used = ", ".join(need.levers) or "no lever"
    table.add_row("peak rate of the plan", rate(need.peak_bit_s), rate(need.peak_bit_s_km2), used)
    table.add_row("mean rate of the plan", rate(need.mean_bit_s), rate(need.mean_bit_s_km2), "first request to last deadline")
    table.add_row("edges needed", _count(need.edges), "", _why(need))
    if need.cells_by_rate is not None:
        table.add_row("cells needed", _count(need.cells_by_rate), f"{need.cells_by_rate / worked.area_km2:,.1f}", "by their rate")
    table.add_row(
        "cache of an edge", size(worked.cache_bytes), "", f"for the wanted hit rate; all models: {size(worked.catalogue_bytes)}"
    )
    table.add_row("hit rate of the disks", f"{worked.hit_rate:.1%}", "", "least recently used, Che's approximation")
    if worked.outcome is None:
        table.add_row("served in time", "-", "", "no number of edges is enough: one device asks for more than an edge sends")
    else:
        found = worked.outcome
        note = f"with {_edges(found.edges)}; the devices of {_A[found.shared]} share its link"
        table.add_row("served in time", f"{found.in_time:.1%}", "", note)
        alone = f"of edges; a device alone gets {rate(found.top_bit_s)}: {size(found.top_bit_s * worked.deadline_s / 8)} in time"
        table.add_row("… with any number", f"{found.reachable:.1%}", "", alone)
    return table


def _why(need: Need) -> str:
    return f"{_count(need.edges_by_rate)} by rate, {need.edges_by_disk:,} by disk: {need.binds} binds"


def _levers(worked: Plan) -> Any:
    table = _table("What each lever is worth")
    for name in ("lever", "peak rate", "per km²", "mean rate", "edges", "peak divided by"):
        table.add_column(name, justify="left" if name == "lever" else "right")
    for need in (worked.plain, *worked.levers):
        what = "none" if not need.levers else "all together" if need.levers == LEVERS else need.levers[0]
        factor = f"{need.reduction:,.1f}" if math.isfinite(need.reduction) else "nothing left"
        rates = (rate(need.peak_bit_s), rate(need.peak_bit_s_km2), rate(need.mean_bit_s))
        table.add_row(what, *rates, _count(need.edges), factor)
    return table


def _cases() -> Any:
    table = _table("What 3GPP asks for, plainly (1 s)")
    for name in ("case", "size", "needs", "stated", "source"):
        table.add_column(name, justify="left" if name in ("case", "source") else "right")
    for density in DENSITIES:
        beside = f"{density.bit_s_km2 / AREA_TRAFFIC_IMT2020_BIT_S_KM2:.2g} × IMT-2020's 10 Tbit/s"
        need = f"{density.bit_s_km2 / 1e12:.3g} Tbit/s per km²"
        table.add_row(f"{density.devices_per_km2:,.0f} devices per km²", size(density.size_bytes), need, beside, "TR 22.874, 6.2")
    for one in DOWNLOADS:
        case = "one device" if one.models == 1 else f"one device, one of {one.models} models"
        table.add_row(case, size(one.size_bytes), rate(one.bit_s), rate(one.stated_bit_s), "TS 22.261, 7.10")
    return table


def _simulation(beside: Comparison) -> Any:
    done = beside.simulated
    table = _table(f"Simulated: {done.requests:,} requests at {_edges(done.edges)}")
    for name in ("what", "formula", "simulation"):
        table.add_column(name, justify="left" if name == "what" else "right")
    table.add_row("served in time", f"{beside.in_time:.1%}", f"{done.in_time:.1%}")
    table.add_row("peak rate asked for (formula: median)", rate(beside.peak_bit_s), rate(done.peak_bit_s))
    table.add_row("… that the plan counts with", rate(beside.bound_bit_s), "")
    table.add_row("hit rate of the caches", f"{beside.hit_rate:.1%}", f"{done.hit_rate:.1%}")
    table.add_row("busiest link", "", rate(done.busiest_link_bit_s))
    for level in _QUANTILES:
        table.add_row(f"time, {100 * level:g} % are faster", "", f"{done.quantile_s(level):.3f} s")
    return table


def _table(title: str) -> Any:
    from rich.table import Table

    return Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")


def rate(bit_s: float) -> str:
    """42.9 Tbit/s."""
    return _scaled(bit_s, "bit/s")


def size(size_bytes: float) -> str:
    """537 MB."""
    return _scaled(size_bytes, "B")


def _scaled(value: float, unit: str) -> str:
    for factor, prefix in _PREFIXES:
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}" if value < 1000 * factor else f"{value / factor:,.0f} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _edges(count: int) -> str:
    return f"{count:,} edge{'' if count == 1 else 's'}"


def _count(value: int | None) -> str:
    return "no number" if value is None else f"{value:,}"
