"""What `capacity.py` compares: overrides of the default plan, by name."""

from __future__ import annotations

from typing import Any

SPREAD = {"catalogue.models": 200, "catalogue.zipf": 0.8, "catalogue.size": {"kind": "log_uniform"}}


def _fixed(size_bytes: float) -> dict[str, Any]:
    return {"catalogue.size": {"kind": "fixed", "size_bytes": size_bytes}}


def _poisson(duration_s: float = 60.0, **more: float) -> dict[str, Any]:
    return {"arrivals": {"kind": "poisson", "duration_s": duration_s, **more}}


def _link(load: float, requests: int, size_bytes: float, duration_s: float, **more: Any) -> dict[str, Any]:
    """One edge at this load."""
    edge = {"network.edges": 1, "network.edge_bit_s": requests * size_bytes * 8 / duration_s / load}
    return {**_fixed(size_bytes), "devices_per_km2": requests, **edge, **_poisson(duration_s), **more}


def _steady(load: float, alone_s: float, deadline_s: float, duration_s: float) -> dict[str, Any]:
    """536 MB at a steady rate of requests, on a link on which one alone takes `alone_s`."""
    link = {"network.edges": 1, "network.edge_bit_s": 536e6 * 8 / alone_s, "network.device_bit_s": 1e12}
    return {**_fixed(536e6), "deadline_s": deadline_s, **link, **_poisson(duration_s, rate_per_km2_s=load / alone_s)}


CLOSED = [
    (load, times, _steady(load, 0.8, 0.8 * times, 1e6)) for load in (0.5, 0.8, 0.9, 0.95) for times in (1.5, 2.5, 5.0, 10.0, 20.0)
]

_DISKS = {"network.edge_disk_bytes": 8e9, "network.origin_bit_s": 5e9}
CASES: dict[str, dict[str, Any]] = {
    "all at once, 536 MB, one edge too few": {"network.edges": 434},
    "all at once, 3.2–536 MB, 50 edges (200 each)": {**SPREAD, "network.edges": 50},
    "all at once, 3.2–536 MB, 100 edges (100 each)": {**SPREAD, "network.edges": 100},
    "all at once, 3.2–536 MB, 500 edges of 20 Gbit/s (20 each)": {**SPREAD, "network.edges": 500, "network.edge_bit_s": 20e9},
    "all at once, 3.2–536 MB, 2,000 edges of 5 Gbit/s (5 each)": {**SPREAD, "network.edges": 2000, "network.edge_bit_s": 5e9},
    "all at once, deltas and device caches": {**SPREAD, "network.edges": 40, "levers.use": ["delta", "device_cache"]},
    "all at once, 5 models broadcast": {**SPREAD, "network.edges": 60, "levers.use": ["multicast"], "levers.multicast_models": 5},
    "all at once, disks of 5 GB, origin 100 Gbit/s": {
        **SPREAD,
        "network.edges": 100,
        "network.edge_disk_bytes": 5e9,
        "network.origin_bit_s": 100e9,
    },
    "staggered by 60 s, 64 MB, load 1.07": {
        **_fixed(64e6),
        "network.edges": 4,
        "network.edge_bit_s": 20e9,
        "levers.use": ["staggering"],
    },
    "crowd of 5 s, 64 MB, 5 edges": {
        **_fixed(64e6),
        "network.edges": 5,
        "network.edge_bit_s": 50e9,
        "arrivals": {"kind": "burst"},
    },
    "crowd of 5 s within an hour, 64 MB, 5 edges": {
        **_fixed(64e6),
        "network.edges": 5,
        "network.edge_bit_s": 50e9,
        "arrivals": {"kind": "burst", "at_s": 1800.0, "duration_s": 3600.0},
    },
    **{
        f"Poisson, 3.2–536 MB, 4 edges of {rate / 1e9:g} Gbit/s": {
            **SPREAD,
            "network.edges": 4,
            "network.edge_bit_s": rate,
            **_poisson(),
        }
        for rate in (54e9, 42e9, 39e9, 34e9, 30e9)
    },
    **{f"Poisson, 64 MB, load {load:g}": _link(load, 10_000, 64e6, 60.0) for load in (0.9, 0.97, 1.0, 1.03, 1.1, 1.2)},
    **{
        f"Poisson, 536 MB in 2 s, 10 min, load {load:g}": _link(load, 2000, 536e6, 600.0, deadline_s=2.0)
        for load in (0.5, 0.8, 0.9, 0.95, 1.05)
    },
    "Poisson, 536 MB in 2 s, 6 h, load 0.9 (0.8 s alone)": _steady(0.9, 0.8, 2.0, 21_600.0),
    "Poisson, 536 MB in 10 s, 6 h, load 0.9 (0.8 s alone)": _steady(0.9, 0.8, 10.0, 21_600.0),
    "Poisson, disks of 8 GB, origin 5 Gbit/s": {
        **SPREAD,
        "network.edges": 2,
        **_DISKS,
        "network.edge_bit_s": 12e9,
        **_poisson(600.0),
    },
    "Poisson, the same with edges at load 0.9": {
        **SPREAD,
        "network.edges": 2,
        **_DISKS,
        "network.edge_bit_s": 7.9e9,
        **_poisson(600.0),
    },
    **{
        f"a day, 536 MB in {deadline_s:g} s, one edge of {rate / 1e9:g} Gbit/s": {
            **_fixed(536e6),
            "network.edges": 1,
            "network.edge_bit_s": rate,
            "deadline_s": deadline_s,
            "arrivals": {"kind": "diurnal"},
        }
        for deadline_s, rate in ((10.0, 0.9e9), (30.0, 0.6e9))
    },
    "cells of 10 Gbit/s, 3.2 MB at once": {
        **_fixed(3.2e6),
        "network.edges": 3,
        "network.cell_bit_s": 10e9,
        "network.cell_km2": 0.03,
    },
}

PEAKS: dict[str, dict[str, Any]] = {
    "all at once, 3.2–536 MB": SPREAD,
    "staggered by 60 s, 64 MB": {**_fixed(64e6), "levers.use": ["staggering"]},
    "crowd of 5 s, 64 MB": {**_fixed(64e6), "arrivals": {"kind": "burst"}},
    "Poisson, 64 MB": {**_fixed(64e6), **_poisson()},
    "Poisson, 3.2–536 MB": {**SPREAD, **_poisson()},
    "Poisson, 536 MB in 2 s, 2,000 in 10 min": {**_fixed(536e6), "devices_per_km2": 2000, "deadline_s": 2.0, **_poisson(600.0)},
    "a day, 536 MB in 10 s": {**_fixed(536e6), "deadline_s": 10.0, "arrivals": {"kind": "diurnal"}},
}
