"""`cellwright plan edge` checked: its formulas against a simulation, and the simulated link against the real edge server.

Writes `benchmarks/results/<date>-capacity.md`. Under 3 minutes. `python benchmarks/capacity.py`
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from cellwright.bundle import store
from cellwright.bundle.keys import signing_key, trusted
from cellwright.bundle.layout import About
from cellwright.bundle.wrap import wrap
from cellwright.capacity.config import read
from cellwright.capacity.link import SharedLink
from cellwright.capacity.plan import compare
from cellwright.edge.server import Edge

NAME, FILE_BYTES, DEVICES = "bench-model", 3_200_000, 200
LOADS, REPEATS = (0.3, 0.6, 0.9), 5
SEEDS = 3
SPREAD = {"catalogue.models": 200, "catalogue.zipf": 0.8, "catalogue.size": {"kind": "log_uniform"}}


def _fixed(size_bytes: float) -> dict[str, Any]:
    return {"catalogue.size": {"kind": "fixed", "size_bytes": size_bytes}}


def _poisson(duration_s: float = 60.0) -> dict[str, Any]:
    return {"arrivals": {"kind": "poisson", "duration_s": duration_s}}


CASES: dict[str, dict[str, Any]] = {
    "all at once, 536 MB, one edge too few": {"network.edges": 434},
    "all at once, 3.2–536 MB, 50 edges": {**SPREAD, "network.edges": 50},
    "all at once, deltas and device caches": {**SPREAD, "network.edges": 40, "levers.use": ["delta", "device_cache"]},
    "all at once, 5 models broadcast": {**SPREAD, "network.edges": 60, "levers.use": ["multicast"], "levers.multicast_models": 5},
    "all at once, disks of 5 GB": {
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
    **{
        f"Poisson, 3.2–536 MB, {rate / 1e9:g} Gbit/s an edge": {
            **SPREAD,
            "network.edges": 4,
            "network.edge_bit_s": rate,
            **_poisson(),
        }
        for rate in (54e9, 42e9, 39e9, 34e9)
    },
    **{
        f"Poisson, 64 MB, load {load:g}": {
            **_fixed(64e6),
            "network.edges": 1,
            "network.edge_bit_s": 10_000 * 64e6 * 8 / 60 / load,
            **_poisson(),
        }
        for load in (0.9, 1.0, 1.2)
    },
    **{
        f"Poisson, 536 MB in 2 s, load {load:g}": {
            **_fixed(536e6),
            "devices_per_km2": 2000,
            "network.edges": 1,
            "network.edge_bit_s": 2000 * 536e6 * 8 / 600 / load,
            "deadline_s": 2.0,
            **_poisson(600.0),
        }
        for load in (0.5, 0.8, 0.95)
    },
    "Poisson, disks of 8 GB, origin 5 Gbit/s": {
        **SPREAD,
        "network.edges": 2,
        "network.edge_disk_bytes": 8e9,
        "network.origin_bit_s": 5e9,
        "network.edge_bit_s": 12e9,
        **_poisson(600.0),
    },
    "a day, 536 MB in 30 s, busy hour overloaded": {
        **_fixed(536e6),
        "network.edges": 1,
        "network.edge_bit_s": 0.6e9,
        "deadline_s": 30.0,
        "arrivals": {"kind": "diurnal"},
    },
}


@dataclass(frozen=True)
class Against:
    """One load on the real server beside the simulated link. Times in ms."""

    load: float
    measured: tuple[float, ...]  # p50, p90, p99
    simulated: tuple[float, ...]


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    lines = [*_head(), *_formulas(), *_speed(), *_real()]
    path = arguments.out / f"{datetime.now(UTC):%Y-%m-%d}-capacity.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


def _head() -> Iterator[str]:
    import aiohttp
    import simpy

    one, five, _ = os.getloadavg()
    yield f"# Scale on paper, {datetime.now(UTC):%Y-%m-%d}"
    yield ""
    yield (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, numpy {np.__version__}, "
        f"simpy {simpy.__version__}, aiohttp {aiohttp.__version__}. Load average at the start {one:.1f} (1 min), {five:.1f} (5 min)"
        f"{': other work shared the machine, so the times measured below are not those of a quiet one' if one > 1 else ''}."
    )
    yield "`python benchmarks/capacity.py`"
    yield ""


def _formulas() -> Iterator[str]:
    yield f"## Formulas against simulation ({SEEDS} seeds each, mean; peak: median of the formula)"
    yield ""
    yield "| case | requests | in time, formula | simulated | apart | peak, formula, Gbit/s | simulated | hits, formula | simulated |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    worst = 0.0
    for what, over in CASES.items():
        found = [compare(read(None, over), seed=seed, max_requests=20_000) for seed in range(1, SEEDS + 1)]
        one, done = found[0], [f.simulated for f in found]
        share = float(np.mean([s.in_time for s in done]))
        worst = max(worst, abs(share - one.in_time))
        peak, hits = np.mean([s.peak_bit_s for s in done]) / 1e9, np.mean([s.hit_rate for s in done])
        yield (
            f"| {what} | {one.simulated.requests:,} | {one.in_time:.3f} | {share:.3f} | {share - one.in_time:+.3f} | "
            f"{one.peak_bit_s / 1e9:,.1f} | {peak:,.1f} | {one.hit_rate:.3f} | {hits:.3f} |"
        )
    yield ""
    yield f"Largest difference of the share in time: {worst:.3f}."
    yield ""


def _speed() -> Iterator[str]:
    yield "## Time of the simulation"
    yield ""
    yield "| requests on one link | s | µs a request |"
    yield "| --- | --- | --- |"
    for count in (10_000, 100_000):
        arrivals = np.sort(np.random.default_rng(1).random(count) * 60)
        started = time.perf_counter()
        _simulated(arrivals, count * 8 * FILE_BYTES / 60, float("inf"))
        took = time.perf_counter() - started
        yield f"| {count:,} | {took:.2f} | {1e6 * took / count:.0f} |"
    yield ""


def _real() -> Iterator[str]:
    yield "## The simulated link against the real edge server"
    yield ""
    with tempfile.TemporaryDirectory() as folder, _Served(Path(folder)) as (port, path):
        alone_s, capacity = asyncio.run(_calibrated(port, path))
        found = [asyncio.run(_against(port, path, load, capacity, 8 * FILE_BYTES / alone_s)) for load in LOADS]
    yield (
        f"{DEVICES} devices fetch {FILE_BYTES / 1e6:.1f} MB each over loopback, Poisson arrivals, {REPEATS} times a load. Measured "
        f"first, and given to the simulation: one fetch alone {1e3 * alone_s:.2f} ms (the cap), 32 at a time "
        f"{capacity / 1e9:.1f} Gbit/s (the link)."
    )
    yield ""
    yield "| load | p50 measured, ms | simulated | p90 measured, ms | simulated | p99 measured, ms | simulated |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in found:
        pairs = " | ".join(f"{m:.1f} | {s:.1f}" for m, s in zip(one.measured, one.simulated, strict=True))
        yield f"| {one.load:g} | {pairs} |"


class _Served:
    """The edge in a process of its own; gives its port and the path of the file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> tuple[int, str]:
        weights = self._folder / "weights"
        weights.write_bytes(np.random.default_rng(1).bytes(FILE_BYTES))
        about = About(NAME, "1.0.0", "A benchmark's model", "none", "", 0, None, None)
        manifest = wrap(self._folder / "packed", weights, "opaque", about, signing_key(self._folder / "keys"))
        store.place(self._folder / "published", self._folder / "packed", manifest, activate=True)
        self._here, there = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(self._folder, there))
        self._process.start()
        digest = manifest.layers["model.bin"].digest.removeprefix("sha256:")
        return int(self._here.recv()), f"/v1/bundles/{NAME}/1.0.0/blobs/sha256/{digest}"

    def __exit__(self, *_: object) -> None:
        self._here.send("stop")
        self._process.join()


def _serve(folder: Path, pipe: Connection) -> None:
    async def run() -> None:
        async with Edge(folder / "published", trusted(folder / "keys"), port=0) as edge:
            pipe.send(edge.port)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


async def _fetch(port: int, path: str) -> float:
    """Seconds from the request to the last byte; the bytes are counted and dropped."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head[:16]:
        raise RuntimeError(head.decode())
    left = FILE_BYTES
    while left > 0 and (part := await reader.read(1 << 20)):
        left -= len(part)
    writer.close()
    if left:
        raise RuntimeError(f"{left} bytes did not arrive")
    return time.perf_counter() - started


async def _calibrated(port: int, path: str) -> tuple[float, float]:
    """(s of a fetch alone, bit/s of 32 at a time)."""
    alone = [await _fetch(port, path) for _ in range(60)]
    started, count = time.perf_counter(), 0

    async def again() -> None:
        nonlocal count
        while time.perf_counter() - started < 4:
            await _fetch(port, path)
            count += 1

    await asyncio.gather(*(again() for _ in range(32)))
    return float(np.median(alone[10:])), 8 * FILE_BYTES * count / (time.perf_counter() - started)


async def _against(port: int, path: str, load: float, capacity_bit_s: float, cap_bit_s: float) -> Against:
    measured, simulated = [], []
    for seed in range(REPEATS):
        rng = np.random.default_rng([seed, int(100 * load)])
        arrivals = np.cumsum(rng.exponential(8 * FILE_BYTES / capacity_bit_s / load, DEVICES))
        measured.append(await _replayed(port, path, arrivals))
        simulated.append(_simulated(arrivals, capacity_bit_s, cap_bit_s))
    levels = [50, 90, 99]
    return Against(
        load,
        tuple(1e3 * np.percentile(np.concatenate(measured), levels)),
        tuple(1e3 * np.percentile(np.concatenate(simulated), levels)),
    )


async def _replayed(port: int, path: str, arrivals: np.ndarray) -> np.ndarray:
    """(devices,) s from the planned moment of each request, so that a late start counts as waiting."""
    started = asyncio.get_running_loop().time() + 0.05

    async def device(at: float) -> float:
        await asyncio.sleep(started + at - asyncio.get_running_loop().time())
        await _fetch(port, path)
        return asyncio.get_running_loop().time() - started - at

    return np.array(await asyncio.gather(*(device(float(at)) for at in arrivals)))


def _simulated(arrivals: np.ndarray, capacity_bit_s: float, cap_bit_s: float) -> np.ndarray:
    """(devices,) s of the same arrivals on a simulated link."""
    import simpy

    env = simpy.Environment()
    link, took = SharedLink(env, capacity_bit_s, cap_bit_s), np.zeros(len(arrivals))

    def device(k: int, at: float) -> Iterator[Any]:
        yield env.timeout(at)
        yield link.transfer(8 * FILE_BYTES)
        took[k] = env.now - at

    for k, at in enumerate(arrivals.tolist()):
        env.process(device(k, at))
    env.run()
    return took


if __name__ == "__main__":
    main()
