"""The answer: required rates, edges, caches, who is served in time, and what each lever is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cellwright.capacity import cache
from cellwright.capacity.config import LEVERS, Lever, PlanEdge
from cellwright.capacity.demand import Demand, demand
from cellwright.capacity.population import population
from cellwright.capacity.servers import cells_of, in_time, servers
from cellwright.capacity.simulate import Simulated, simulate
from cellwright.errors import WrongUse

Binds = Literal["rate", "disk", "one device"]


@dataclass(frozen=True)
class Need:
    """What the area asks for with some levers. Rates are sums over the area; the radio carries a broadcast once a cell."""

    levers: tuple[Lever, ...]
    peak_bit_s: float
    peak_bit_s_km2: float
    mean_bit_s: float
    mean_bit_s_km2: float
    broadcast_bit_s: float  # part of both
    edges_by_rate: int | None  # None: no number is enough, since one device asks for more than an edge sends
    edges_by_disk: int
    edges: int | None
    binds: Binds
    cells_by_rate: int | None  # cells that the radio needs; None: not asked, or no number is enough
    reduction: float  # peak without any lever, divided by this one; infinity where nothing is left to send


@dataclass(frozen=True)
class Outcome:
    """What devices get from so many edges."""

    edges: int
    shared: Literal["edge", "cell"]  # which links are the tightest
    in_time: float  # share of the requests
    top_bit_s: float  # what a device gets where it is alone
    reachable: float  # share that would be in time with any number of edges: the device's own link and the radio's allow it


@dataclass(frozen=True)
class Plan:
    """`plain`: no lever; `need`: the levers of the plan; `levers`: each alone and all together."""

    area_km2: float
    requests: float
    deadline_s: float
    at_once_bit_s_km2: float  # every device at the same moment, no lever: density × mean size × 8 / deadline
    plain: Need
    need: Need
    levers: tuple[Need, ...]
    cache_bytes: float  # an edge's, for the wanted hit rate
    catalogue_bytes: float
    hit_rate: float  # what the disks of one edge give
    outcome: Outcome | None  # None: no number of edges was given, and none is enough


@dataclass(frozen=True)
class Comparison:
    """Formula beside simulation, of the same part of the area."""

    simulated: Simulated
    in_time: float
    peak_bit_s: float  # as likely exceeded as not, as one simulation's is
    bound_bit_s: float  # exceeded with 1 - confidence only: what the plan counts with
    hit_rate: float


def plan(config: PlanEdge) -> Plan:
    """Work the whole plan out."""
    plain = _need(config, (), None)
    need = _need(config, config.levers.use, plain)
    asked = demand(config, config.levers.use)
    edges = config.network.edges or need.edges
    sizes = asked.model_bits / 8
    hit = cache.hit_rates(asked.popularity, sizes, config.network.edge_disk_bytes)
    return Plan(
        config.area_km2,
        asked.requests,
        config.deadline_s,
        config.devices_per_km2 * _mean_bytes(config) * 8 / config.deadline_s,
        plain,
        need,
        tuple(_need(config, use, plain) for use in (*((lever,) for lever in LEVERS), LEVERS)),
        cache.disk_for(asked.popularity, sizes, config.network.hit_rate),
        float(sizes.sum()),
        float(hit @ asked.popularity),
        None if edges is None else _outcome(config, asked, edges),
    )


def _mean_bytes(config: PlanEdge) -> float:
    """Size of the model that a request asks for, on average."""
    found = population(config.catalogue)
    return float(found.size_bytes @ found.popularity)


def compare(config: PlanEdge, *, seed: int, max_requests: int) -> Comparison:
    """Simulate as many of the edges as `max_requests` allows (one at least), and put the formulas' answer beside.

    Raises:
        WrongUse: the plan has no number of edges, since none is enough.
    """
    asked = demand(config, config.levers.use)
    edges = config.network.edges or _need(config, config.levers.use, None).edges
    if edges is None:
        raise WrongUse("no number of edges meets this demand, so there is nothing to simulate; give network.edges (--edges)")
    given = servers(config, asked, edges)
    part = max(1, min(edges, math.floor(edges * max_requests / asked.requests)))
    done = simulate(asked, given, seed=seed, edges=part)
    hit = cache.hit_rates(asked.popularity, asked.model_bits / 8, config.network.edge_disk_bytes)
    count = asked.requests * part / edges
    median, bound = asked.peak_bit_s(0.5, count), asked.peak_bit_s(config.confidence, count)
    return Comparison(done, in_time(asked, given), median, bound, float(hit @ asked.popularity))


def _need(config: PlanEdge, use: tuple[Lever, ...], plain: Need | None) -> Need:
    asked, network = demand(config, use), config.network
    stream = asked.broadcast.stream_bit_s * cells_of(config) if asked.broadcast else 0.0
    peak, mean = asked.peak_bit_s(config.confidence) + stream, asked.mean_bit_s() + stream
    sizes = asked.model_bits / 8
    wanted = cache.disk_for(asked.popularity, sizes, network.hit_rate)
    by_rate = asked.units_needed(config.confidence, network.edge_bit_s)
    by_disk = max(1, math.ceil(wanted / network.edge_disk_bytes - 1e-9))
    first = peak if plain is None else plain.peak_bit_s
    return Need(
        use,
        peak,
        peak / config.area_km2,
        mean,
        mean / config.area_km2,
        stream,
        by_rate,
        by_disk,
        None if by_rate is None else max(by_rate, by_disk),
        "one device" if by_rate is None else "disk" if by_disk > by_rate else "rate",
        None if network.cell_bit_s is None else asked.units_needed(config.confidence, network.cell_bit_s),
        first / peak if peak > 0 else math.inf,
    )


def _outcome(config: PlanEdge, asked: Demand, edges: int) -> Outcome:
    given = servers(config, asked, edges)
    plenty = servers(config, asked, max(edges, round(min(asked.requests * 1000, 1e9))))
    top_bit_s = min(given.device_bit_s, given.link_bit_s)
    return Outcome(edges, given.shared, in_time(asked, given), top_bit_s, in_time(asked, plenty))
