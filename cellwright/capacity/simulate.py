"""The plan as a discrete-event simulation: every request, every link, every cache (simpy; seeded, so that it repeats)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellwright.capacity.demand import Demand
from cellwright.capacity.link import SharedLink
from cellwright.capacity.population import Floats
from cellwright.capacity.servers import Servers
from cellwright.errors import WrongUse

MAX_REQUESTS = 2_000_000
_WARM_UP = 5  # requests a model that a cache sees before the time begins
_MIN_WARM_UP = 1000


@dataclass(frozen=True, eq=False)
class Simulated:
    """What came of it. Times in s from the request to the last byte."""

    requests: int
    edges: int
    in_time: float  # share of all requests
    peak_bit_s: float  # largest sum of bits / deadline of the requests of any deadline's length: what unicast asks for
    busiest_link_bit_s: float
    hit_rate: float  # of the unicast requests at the edges' caches
    duration_s: Floats  # (requests,), in order of arrival

    def quantile_s(self, level: float) -> float:
        """Time within which this share of the requests is done."""
        return float(np.quantile(self.duration_s, level)) if len(self.duration_s) else 0.0


@dataclass(frozen=True, eq=False)
class _Requests:
    """(requests,) each; `bits` 0 where nothing has to be sent."""

    at_s: Floats
    bits: Floats
    model: NDArray[np.int64]
    link: NDArray[np.int64]
    by_air: NDArray[np.bool_]


class _Edge:
    """A cache that forgets the least recently used model, and the link that fills it; everyone waits for one fetch."""

    def __init__(self, env: Any, model_bits: Floats, given: Servers) -> None:
        self._disk_bits, self._model_bits = given.disk_bytes * 8, model_bits
        self._origin = SharedLink(env, given.origin_bit_s)
        self._held: OrderedDict[int, float] = OrderedDict()
        self._held_bits = 0.0
        self._coming: dict[int, Any] = {}
        self.asked, self.met = 0, 0

    def warm_up(self, popularity: Floats, rng: np.random.Generator) -> None:
        """Bring the cache to where it is in the long run: the most popular models, then many requests."""
        for model in reversed(range(len(popularity))):
            self._keep(model)
        if self._held_bits < float(self._model_bits.sum()):
            count = max(_MIN_WARM_UP, _WARM_UP * len(popularity))
            for model in rng.choice(len(popularity), count, p=popularity).tolist():
                self._keep(model)

    def has(self, model: int) -> Iterator[Any]:
        """Wait until the model is there (a generator for simpy)."""
        self.asked += 1
        if model in self._held:
            self.met += 1
            self._held.move_to_end(model)
            return
        if model not in self._coming:
            self._coming[model] = self._origin.transfer(float(self._model_bits[model]))
            yield self._coming[model]
            del self._coming[model]
            self._keep(model)
        else:
            yield self._coming[model]

    def _keep(self, model: int) -> None:
        if model in self._held:
            self._held.move_to_end(model)
            return
        bits = float(self._model_bits[model])
        if bits > self._disk_bits:
            return
        self._held[model] = bits
        self._held_bits += bits
        while self._held_bits > self._disk_bits * (1 + 1e-12):
            self._held_bits -= self._held.popitem(last=False)[1]


def simulate(asked: Demand, given: Servers, *, seed: int, edges: int | None = None) -> Simulated:
    """Let the requests happen. `edges`: simulate so many of the edges, with their part of the requests and links; None: all.

    Raises:
        WrongUse: more requests than a simulation holds.
    """
    import simpy

    rng = np.random.default_rng(seed)
    part = given.edges if edges is None else min(edges, given.edges)
    links = max(1, round(given.links * part / given.edges))
    made = _requests(asked, links, asked.requests * links / given.links, rng)
    env = simpy.Environment()
    shared = [SharedLink(env, given.link_bit_s, given.device_bit_s) if given.link_bit_s > 0 else None for _ in range(links)]
    holders = [_Edge(env, asked.model_bits, given) for _ in range(part)]
    for holder in holders:
        holder.warm_up(asked.popularity, rng)
    ends = np.where(made.bits > 0, np.inf, made.at_s)
    if asked.broadcast:
        ends = np.where(made.by_air, made.at_s + asked.broadcast.cycle_s, ends)
    env.process(_arrive(env, made, shared, holders, ends))
    env.run()
    return _summed(asked, made, ends, shared, holders)


def _arrive(env: Any, made: _Requests, shared: list[SharedLink | None], holders: list[_Edge], ends: Floats) -> Iterator[Any]:
    for k in np.flatnonzero(made.bits > 0).tolist():
        if (link := shared[made.link[k]]) is None:
            continue
        if made.at_s[k] > env.now:
            yield env.timeout(float(made.at_s[k]) - env.now)
        env.process(_one(env, k, made, link, holders[made.link[k] % len(holders)], ends))


def _one(env: Any, k: int, made: _Requests, link: SharedLink, holder: _Edge, ends: Floats) -> Iterator[Any]:
    yield from holder.has(int(made.model[k]))
    yield link.transfer(float(made.bits[k]))
    ends[k] = env.now


def _requests(asked: Demand, links: int, expected: float, rng: np.random.Generator) -> _Requests:
    count = round(expected) if asked.timing.fixed else int(rng.poisson(expected))
    if count > MAX_REQUESTS:
        raise WrongUse(
            f"{count:,} requests are more than the {MAX_REQUESTS:,} of a simulation; simulate fewer edges, or a smaller area"
        )
    at_s = asked.timing.sample(count, rng)
    kinds = len(asked.bits)
    shares = np.concatenate([asked.share, [asked.cached, asked.joined]])
    kind = rng.choice(kinds + 2, count, p=shares / shares.sum())
    alone = kind < kinds
    inside = np.where(alone, kind, 0)
    bits = np.where(alone, asked.bits[inside], 0.0) if kinds else np.zeros(count)
    model = asked.model[inside] if kinds else np.zeros(count, dtype=np.int64)
    dealt = rng.permutation(count) % links if asked.timing.fixed else rng.integers(0, links, count)
    return _Requests(at_s, bits, model, dealt, kind == kinds + 1)


def _summed(asked: Demand, made: _Requests, ends: Floats, shared: list[SharedLink | None], holders: list[_Edge]) -> Simulated:
    taken = ends - made.at_s
    count = sum(holder.asked for holder in holders)
    return Simulated(
        requests=len(taken),
        edges=len(holders),
        in_time=float(np.mean(taken <= asked.deadline_s * (1 + 1e-9))) if len(taken) else 1.0,
        peak_bit_s=_peak(made, asked.deadline_s),
        busiest_link_bit_s=max((link.busiest_bit_s for link in shared if link), default=0.0),
        hit_rate=sum(holder.met for holder in holders) / count if count else 1.0,
        duration_s=taken,
    )


def _peak(made: _Requests, deadline_s: float) -> float:
    """Each request asks for bits / deadline from its arrival until the deadline."""
    times = np.concatenate([made.at_s, made.at_s + deadline_s])
    change = np.concatenate([made.bits, -made.bits]) / deadline_s
    order = np.lexsort((change, times))  # who ends at a moment leaves before the next comes
    return float(np.max(np.cumsum(change[order]), initial=0.0))
