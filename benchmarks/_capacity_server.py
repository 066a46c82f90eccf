"""The part of `capacity.py` that asks a real edge server: Poisson arrivals over loopback, beside formula and simulation of the same.

Twice: through the network simulator's forwarder, which makes a link of a known rate of it whatever else the machine does (`shaped`),
and as fast as the machine goes, which is then the link itself (`real`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _served import edge, process

from cellwright.bundle import store
from cellwright.bundle.keys import signing_key
from cellwright.bundle.layout import About
from cellwright.bundle.wrap import wrap
from cellwright.capacity import sharing
from cellwright.capacity.config import Poisson
from cellwright.capacity.link import SharedLink
from cellwright.capacity.timing import timing
from cellwright.qos.simulator import bucket
from cellwright.qos.simulator.shaper import Conditions, Rules, Shaper
from cellwright.qos.simulator.shaper import Path as Connected

NAME, FILE_BYTES, DEVICES = "bench-model", 3_200_000, 300
LOADS, TIMES = (0.3, 0.6, 0.9), (2, 5, 10)
_TOGETHER, _CALIBRATION_S = 16, 1.2
_LEVELS = (50, 90, 99)
SHAPED_BIT_S, SHAPED_S = 40e6, 60.0
_BURST_S = 0.01  # of a shaped link; the forwarder's own 0.05 s would give bytes away after each pause


@dataclass(frozen=True)
class Link:
    """What the machine carries at the moment."""

    alone_s: float
    capacity_bit_s: float


@dataclass(frozen=True, eq=False)
class Against:
    """One load. (repetitions,) the load with the link's mean rate; (repetitions, …) shares in time, and p50, p90, p99 in ms."""

    load: float
    devices: int
    times: tuple[int, ...]  # deadlines, in times of one alone
    drift: float  # largest change of the link's rate within a repetition
    actual: np.ndarray
    formula: np.ndarray
    simulated: np.ndarray
    measured: np.ndarray
    simulated_ms: np.ndarray
    measured_ms: np.ndarray  # of those whose connection did not break
    lost: np.ndarray


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, str]]:
    """An edge in a process of its own: its port, and the path of the file."""
    weights = folder / "weights"
    weights.write_bytes(np.random.default_rng(1).bytes(FILE_BYTES))
    about = About(NAME, "1.0.0", "A benchmark's model", "none", "", 0, None, None)
    manifest = wrap(folder / "packed", weights, "opaque", about, signing_key(folder / "keys"))
    store.place(folder / "published", folder / "packed", manifest, activate=True)
    with process(edge, folder) as (port, _):
        yield port, f"/v1/bundles/{NAME}/1.0.0/{manifest.layers['model.bin'].blob}"


async def calibrated(port: int, path: str) -> Link:
    """One fetch alone (median of 20), and as many as can be done by some at a time."""
    alone = [await _fetch(port, path) for _ in range(25)]
    started, count = time.perf_counter(), 0

    async def again() -> None:
        nonlocal count
        while time.perf_counter() - started < _CALIBRATION_S:
            await _fetch(port, path)
            count += 1

    await asyncio.gather(*(again() for _ in range(_TOGETHER)))
    return Link(float(np.median(alone[5:])), 8 * FILE_BYTES * count / (time.perf_counter() - started))


async def real(port: int, path: str, load: float, repeats: int, first: Link) -> Against:
    """Repeat a load; the link is measured between the repetitions."""
    deadlines_s = np.array(TIMES) * first.alone_s
    rows: list[list[Any]] = []
    before = await calibrated(port, path)
    for seed in range(repeats):
        rng = np.random.default_rng([seed, int(100 * load)])
        arrivals = np.cumsum(rng.exponential(8 * FILE_BYTES / before.capacity_bit_s / load, DEVICES))
        measured = await _replayed(port, path, arrivals)
        after = await calibrated(port, path)
        link = Link((before.alone_s + after.alone_s) / 2, (before.capacity_bit_s + after.capacity_bit_s) / 2)
        rows.append([abs(after.capacity_bit_s / before.capacity_bit_s - 1), *_beside(arrivals, link, deadlines_s, measured)])
        before = after
    drift, *columns = zip(*rows, strict=True)
    return Against(load, DEVICES, TIMES, max(drift), *map(np.array, columns))


class _Cells(Rules):
    """A link of its own for each entrance."""

    def conditions(self, path: Connected) -> Conditions:
        return Conditions(path.device, SHAPED_BIT_S)


async def shaped(port: int, path: str, repeats: int) -> tuple[list[Against], float]:
    """All loads and repetitions at the same time, each on a link of its own; and how late the forwarder's turns come (p99, s)."""
    link = Link(8 * FILE_BYTES / SHAPED_BIT_S, SHAPED_BIT_S)
    before, bucket.BURST_S = bucket.BURST_S, _BURST_S
    shaper = Shaper(_Cells())
    try:
        runs = [_on_link(shaper, port, path, load, seed, link) for load in LOADS for seed in range(repeats)]
        late: list[float] = []
        watching = asyncio.create_task(_watch(late))
        rows = await asyncio.gather(*runs)
        watching.cancel()
    finally:
        await shaper.close()
        bucket.BURST_S = before
    found = []
    for k, load in enumerate(LOADS):
        columns = zip(*rows[k * repeats : (k + 1) * repeats], strict=True)
        found.append(Against(load, round(load * SHAPED_S / link.alone_s), TIMES, 0.0, *map(np.array, columns)))
    return found, float(np.percentile(late, 99))


async def _watch(late: list[float]) -> None:
    while True:
        due = time.perf_counter() + 0.02
        await asyncio.sleep(0.02)
        late.append(time.perf_counter() - due)


async def _on_link(shaper: Shaper, port: int, path: str, load: float, seed: int, link: Link) -> tuple[Any, ...]:
    entrance = await shaper.listen(("127.0.0.1", port), device=f"{load}-{seed}")
    gaps = np.random.default_rng([seed, int(100 * load), 1]).exponential(
        link.alone_s / load, round(load * SHAPED_S / link.alone_s)
    )
    arrivals = np.cumsum(gaps)
    measured = await _replayed(entrance.port, path, arrivals)
    return _beside(arrivals, link, np.array(TIMES) * link.alone_s, measured)


def _beside(arrivals: np.ndarray, link: Link, deadlines_s: np.ndarray, measured: np.ndarray) -> tuple[Any, ...]:
    cap_bit_s, span_s = 8 * FILE_BYTES / link.alone_s, float(arrivals[-1])
    simulated = _simulated(arrivals, link.capacity_bit_s, cap_bit_s)
    when, one = timing(Poisson(duration_s=span_s)), np.ones(1)
    pool = sharing.Pool(len(arrivals), when, one * 8 * FILE_BYTES, one, one * 0, link.capacity_bit_s, cap_bit_s)
    return (
        8 * FILE_BYTES * len(arrivals) / span_s / link.capacity_bit_s,
        [sharing.share_in_time(pool, deadline_s) for deadline_s in deadlines_s],
        [np.mean(simulated <= deadline_s) for deadline_s in deadlines_s],
        [np.mean(measured <= deadline_s) for deadline_s in deadlines_s],
        1e3 * np.percentile(simulated, _LEVELS),
        1e3 * np.percentile(measured[np.isfinite(measured)], _LEVELS),
        np.sum(np.isinf(measured)),
    )


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


async def _replayed(port: int, path: str, arrivals: np.ndarray) -> np.ndarray:
    """(devices,) s from the planned moment of each request, so that a late start counts as waiting; infinite: the connection broke."""
    started = asyncio.get_running_loop().time() + 0.05

    async def device(at: float) -> float:
        await asyncio.sleep(started + at - asyncio.get_running_loop().time())
        try:
            await _fetch(port, path)
        except (ConnectionError, asyncio.IncompleteReadError):
            return float("inf")
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
