"""`cellwright plan edge` checked, in one run: its formulas against closed forms, a simulation, and a real edge server.

    python benchmarks/capacity.py                  # everything, and benchmarks/results/<date>-capacity.md: 5 minutes on a quiet machine
    python benchmarks/capacity.py --quick --dry    # a look in under a minute; prints, writes nothing

Intervals are those of Student's t at 95 % over independent seeds (formulas) or repetitions (real server).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from _capacity_cases import CASES, CLOSED, PEAKS
from _capacity_server import LOADS, SHAPED_BIT_S, Against, calibrated, real, served, shaped

from cellwright.capacity.config import read
from cellwright.capacity.demand import Demand, demand
from cellwright.capacity.plan import plan
from cellwright.capacity.servers import Servers, in_time, servers
from cellwright.capacity.show import rate
from cellwright.capacity.simulate import _peak, _requests, simulate

LEVELS = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Effort:
    """How much is run: seeds a case and its time limit, draws for a peak, repetitions of a load on the real server."""

    seeds: int
    case_s: float
    draws: int
    repeats: int


FULL, QUICK = Effort(seeds=16, case_s=3.0, draws=200, repeats=5), Effort(seeds=3, case_s=1.0, draws=40, repeats=2)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true", help="few seeds: to see that it runs")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    effort, started = QUICK if arguments.quick else FULL, time.perf_counter()
    lines = list(_head(arguments.quick))
    for part in (_need(), _closed(), _formulas(effort), _peaks(effort), _speed(), _real(effort)):
        for line in part:
            print(line, file=sys.stderr, flush=True)
            lines.append(line)
    lines.append(f"\nWhole run: {time.perf_counter() - started:.0f} s.")
    page = "\n".join(lines) + "\n"
    print(page)
    if not arguments.dry:
        (arguments.out / f"{datetime.now(UTC):%Y-%m-%d}-capacity.md").write_text(page)


def _head(quick: bool) -> Iterator[str]:
    import aiohttp
    import scipy
    import simpy

    one, five, _ = os.getloadavg()
    yield f"# Scale on paper, {datetime.now(UTC):%Y-%m-%d}"
    yield ""
    yield (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, numpy {np.__version__}, scipy "
        f"{scipy.__version__}, simpy {simpy.__version__}, aiohttp {aiohttp.__version__}. Load average at the start {one:.1f} "
        f"(1 min), {five:.1f} (5 min){': other work shares the machine; only the last two parts depend on that' if one > 1 else ''}."
    )
    yield f"`python benchmarks/capacity.py{' --quick' if quick else ''}`; intervals: 95 %, Student's t."
    yield ""


def _need() -> Iterator[str]:
    """The use case, and what each lever makes of it."""
    worked = plan(read(None, {"catalogue.size": {"kind": "fixed", "size_bytes": 536e6}}))
    yield "## What 10,000 devices per km² × 536 MB in 1 s need, and which lever brings it down by how much"
    yield ""
    yield "| lever | peak per km² | mean per km² | peak divided by | edges of 100 Gbit/s |"
    yield "| --- | --- | --- | --- | --- |"
    for need in (worked.plain, *worked.levers):
        what = "none" if not need.levers else need.levers[0] if len(need.levers) == 1 else "all together"
        yield f"| {what} | {rate(need.peak_bit_s_km2)} | {rate(need.mean_bit_s_km2)} | {need.reduction:,.1f} | {need.edges:,} |"
    yield ""


def _closed() -> Iterator[str]:
    yield "## Formula against a closed form: M/D/1 processor sharing in the long run"
    yield ""
    yield "Share done within the deadline; exact: Ott's transform (in Egorova, Zwart, Boxma 2006), inverted numerically."
    yield ""
    yield "| load | deadline / time alone | exact | formula | apart |"
    yield "| --- | --- | --- | --- | --- |"
    worst = 0.0
    for load, times, over in CLOSED:
        exact, found = _md1_ps(load, times), plan(read(None, over)).outcome
        assert found is not None
        worst = max(worst, abs(found.in_time - exact))
        yield f"| {load:g} | {times:g} | {exact:.4f} | {found.in_time:.4f} | {found.in_time - exact:+.4f} |"
    yield ""
    yield f"Largest difference: {worst:.3f}."
    yield ""


def _md1_ps(load: float, deadline: float) -> float:
    """P(V <= deadline), service 1; the Laplace transform is inverted by a Fourier series (Abate and Whitt's Euler algorithm)."""
    accuracy, terms, averaged = 18.4, 400, 12
    s = (accuracy + 2j * np.pi * np.arange(terms + averaged + 1)) / (2 * deadline)
    tail = np.exp(-(load + s))
    transform = (1 - load) * (load + s) ** 2 * tail / (s * s + load * (s + (load + s) * (1 - load)) * tail)
    series = np.real(transform / s) * (-1.0) ** np.arange(len(s)) * np.exp(accuracy / 2) / deadline
    series[0] /= 2
    partial = np.cumsum(series)[terms:]
    return float(partial @ [math.comb(averaged, k) / 2**averaged for k in range(averaged + 1)])


def _formulas(effort: Effort) -> Iterator[str]:
    yield "## Formulas against simulation (share in time; hit rate of the caches)"
    yield ""
    yield "| case | requests | seeds | in time, formula | simulated | apart | hits, formula | simulated |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    apart: list[tuple[float, str]] = []
    for number, (what, over) in enumerate(CASES.items()):
        config = read(None, over)
        asked = demand(config, config.levers.use)
        given = servers(config, asked, config.network.edges or 1)
        shares, hits, requests = _simulated(asked, given, effort, number)
        formula, half = in_time(asked, given), interval(shares)
        apart.append((abs(formula - shares.mean()), what))
        yield (
            f"| {what} | {requests:,} | {len(shares)} | {formula:.3f} | {shares.mean():.3f} ± {half:.3f} | "
            f"{formula - shares.mean():+.3f}{' !' if abs(formula - shares.mean()) > half + 0.01 else ''} | "
            f"{plan(config).hit_rate:.3f} | {hits.mean():.3f} |"
        )
    yield ""
    yield "`!`: further apart than the interval and 0.01. Largest: {:.3f} ({}).".format(*max(apart))
    yield ""


def _simulated(asked: Demand, given: Servers, effort: Effort, number: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(seeds,) shares in time and hit rates, until the seeds or the time are used up; and the requests of one."""
    started, found = time.perf_counter(), []
    while len(found) < 2 or (len(found) < effort.seeds and time.perf_counter() - started < effort.case_s):
        found.append(simulate(asked, given, seed=1000 * number + len(found)))
    return np.array([one.in_time for one in found]), np.array([one.hit_rate for one in found]), found[0].requests


def _peaks(effort: Effort) -> Iterator[str]:
    yield f"## Peak rate: how often {effort.draws} draws of the arrivals exceed the level that the formula gives"
    yield ""
    yield "| case | " + " | ".join(f"formula ({level:g}), Gbit/s | exceeded" for level in LEVELS) + " |"
    yield "| --- |" + " --- | --- |" * len(LEVELS)
    for number, (what, over) in enumerate(PEAKS.items()):
        config = read(None, over)
        asked = demand(config, config.levers.use)
        made = (_requests(asked, 1, asked.requests, np.random.default_rng([number, k])) for k in range(effort.draws))
        found = np.array([_peak(one, asked.deadline_s) for one in made])
        levels = [asked.peak_bit_s(level) for level in LEVELS]
        cells = (f"{bound / 1e9:,.2f} | {np.mean(found > bound * (1 + 1e-9)):.1%}" for bound in levels)
        yield f"| {what} | {' | '.join(cells)} |"
    yield ""


def _speed() -> Iterator[str]:
    yield "## Time of formula and simulation"
    yield ""
    yield "| requests on one link, load 0.9 | formula, s | simulation, s | µs a request |"
    yield "| --- | --- | --- | --- |"
    for count in (10_000, 100_000):
        over = {"devices_per_km2": count, "network.edges": 1, "network.edge_bit_s": count * 3.2e6 * 8 / 60 / 0.9}
        config = read(None, {**over, "catalogue.size": {"kind": "fixed", "size_bytes": 3.2e6}, "arrivals": {"kind": "poisson"}})
        asked = demand(config, ())
        given = servers(config, asked, 1)
        began = time.perf_counter()
        in_time(asked, given)
        between = time.perf_counter()
        simulate(asked, given, seed=1)
        took = time.perf_counter() - between
        yield f"| {count:,} | {between - began:.2f} | {took:.2f} | {1e6 * took / count:.0f} |"
    yield ""


def _real(effort: Effort) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (port, path):
        known, late_s = asyncio.run(shaped(port, path, effort.repeats))
        first = asyncio.run(calibrated(port, path))
        found = [asyncio.run(real(port, path, load, effort.repeats, first)) for load in LOADS]
    alone_s = 3.2e6 * 8 / SHAPED_BIT_S
    yield f"## Formula, simulation and the real edge server on a link of {rate(SHAPED_BIT_S)}"
    yield ""
    yield (
        f"{', '.join(f'{one.devices}' for one in known)} devices fetch 3.2 MB each from the edge, {effort.repeats} repetitions a load, "
        "through the network simulator's forwarder (user space, a link of its own for each repetition, all at the same time). The same "
        f"arrivals in the simulation. Alone a fetch takes {1e3 * alone_s:.0f} ms; deadlines: 2, 5 and 10 times that. `load`: planned, "
        f"and that of the arrivals drawn. The forwarder's turns came up to {1e3 * late_s:.0f} ms late (99 of 100; other work on the "
        "machine), and each fetch of the real server also has a connection to open and a request to send."
    )
    yield ""
    yield from _tables(known)
    yield "## Formula, simulation and the real edge server as fast as the machine goes"
    yield ""
    yield (
        f"{found[0].devices} devices, {effort.repeats} repetitions a load. Server and devices share the machine, which is the link: "
        "what it carries is measured right before and after each repetition (16 fetches at a time; at the start "
        f"{first.capacity_bit_s / 1e9:.2f} Gbit/s, one alone {1e3 * first.alone_s:.1f} ms) and the mean is given to formula and "
        f"simulation. `load`: planned, and with that mean. The link's rate moved by up to {max(one.drift for one in found):.0%} within "
        "a repetition: no comparison near saturation is sharper than that."
    )
    yield ""
    yield from _tables(found)


def _tables(found: list[Against]) -> Iterator[str]:
    yield "| load | " + " | ".join(f"in {k} ×: formula | simulated | measured" for k in found[0].times) + " |"
    yield "| --- |" + " --- | --- | --- |" * len(found[0].times)
    yield from map(_row, found)
    yield ""
    yield "| load | " + " | ".join(f"{level}: simulated, ms | measured, ms" for level in ("p50", "p90", "p99")) + " | lost |"
    yield "| --- |" + " --- | --- |" * 3 + " --- |"
    for one in found:
        pairs = (f"{_pm(one.simulated_ms[:, k], 1)} | {_pm(one.measured_ms[:, k], 1)}" for k in range(3))
        yield f"| {one.load:g} | {' | '.join(pairs)} | {one.lost.sum()} |"
    yield ""


def _row(one: Against) -> str:
    cells = (
        f"{_pm(one.formula[:, k], 3)} | {_pm(one.simulated[:, k], 3)} | {_pm(one.measured[:, k], 3)}"
        for k in range(len(one.times))
    )
    return f"| {one.load:g} ({_pm(one.actual, 2)}) | {' | '.join(cells)} |"


def _pm(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ± {interval(values):.{digits}f}"


def interval(values: np.ndarray) -> float:
    """Half of the 95 % interval of the mean."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


if __name__ == "__main__":
    main()
