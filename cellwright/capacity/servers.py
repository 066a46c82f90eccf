"""Which links the devices share, and what an edge's cache makes them wait: what formulas and simulation both start from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cellwright.capacity import cache, sharing
from cellwright.capacity.config import PlanEdge
from cellwright.capacity.demand import Demand


@dataclass(frozen=True)
class Servers:
    """So many edges, each with its cache; `links`: the tightest links, among which the requests are dealt evenly."""

    edges: int
    links: int
    shared: Literal["edge", "cell"]
    link_bit_s: float  # what unicast has of one link; 0 where the broadcast takes it all
    device_bit_s: float
    disk_bytes: float  # what one edge's cache holds of the models that are its own to hold
    origin_bit_s: float


def cells_of(config: PlanEdge) -> int:
    """Cells of the area; a part of one counts as one."""
    return max(1, math.ceil(config.area_km2 / config.network.cell_km2 - 1e-9))


def servers(config: PlanEdge, asked: Demand, edges: int) -> Servers:
    """Edges, or cells where these together carry less than the edges do."""
    network, cells = config.network, cells_of(config)
    cell_bit_s = network.cell_bit_s or math.inf
    by_cell = cells * cell_bit_s < edges * network.edge_bit_s
    stream = asked.broadcast.stream_bit_s if asked.broadcast else 0.0
    link = cell_bit_s if by_cell else network.edge_bit_s
    return Servers(
        edges,
        cells if by_cell else edges,
        "cell" if by_cell else "edge",
        max(0.0, link - stream),
        min(network.device_bit_s, cell_bit_s),
        network.edge_disk_bytes,
        network.origin_bit_s,
    )


def in_time(asked: Demand, given: Servers) -> float:
    """Share of all requests that are met within the deadline: held already, broadcast, or served by the links in time."""
    by_air = asked.joined if asked.broadcast and asked.broadcast.cycle_s <= asked.deadline_s * (1 + 1e-9) else 0.0
    if given.link_bit_s <= 0 or not len(asked.bits):
        return asked.cached + by_air
    waiting = misses(asked, given)
    if not asked.timing.fixed:
        return asked.cached + by_air + _on_link(asked, given, waiting, asked.requests / given.links)
    each, more = divmod(round(asked.requests), given.links)
    shares = [(each, (given.links - more) * each), (each + 1, more * (each + 1))]
    served = sum(_on_link(asked, given, waiting, n) * weight for n, weight in shares if weight)
    return asked.cached + by_air + served / max(1, round(asked.requests))


def misses(asked: Demand, given: Servers) -> cache.Waits:
    """(models,) who finds the model missing at the edge."""
    hit = cache.hit_rates(asked.popularity, asked.model_bits / 8, given.disk_bytes)
    by_model = np.bincount(asked.model, asked.share, len(asked.popularity)) * asked.requests / given.edges
    return cache.waits(hit, asked.model_bits, by_model, asked.timing.span_s, given.origin_bit_s)


def _on_link(asked: Demand, given: Servers, waiting: cache.Waits, count: float) -> float:
    """Share of the requests of a link with `count` of them that it serves in time."""
    late, wait_s = waiting.share[asked.model], np.minimum(waiting.wait_s[asked.model], 2 * asked.deadline_s)
    bits, share, wait = asked.bits, asked.share, np.zeros(len(asked.bits))
    if waiting.any:
        bits = np.concatenate([bits, bits])
        wait = np.concatenate([wait, wait_s])
        share = np.concatenate([share * (1 - late), share * late])
        bits, share, wait = bits[share > 0], share[share > 0], wait[share > 0]
    pool = sharing.Pool(count, asked.timing, bits, share, wait, given.link_bit_s, given.device_bit_s)
    return sharing.share_in_time(pool, asked.deadline_s)
