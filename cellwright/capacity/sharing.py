"""Downloads that share a link evenly, each at most as fast as its device (processor sharing): who is done in time.

Bits are attained at the same rate by all who are on the link, `r = min(cap, capacity / n)`, so a request that comes at `t` with
`b` bits ends when the attained service has grown by `b` (docs/capacity.md, "Processor sharing").
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from cellwright.capacity import queue
from cellwright.capacity.population import Floats
from cellwright.capacity.timing import Timing

_STEPS, _AFTER, _ATOMS = 3500, 500, 96  # of the fluid limit: while requests come, and after; sizes that are told apart
_SLICES, _FINE = 48, 8  # of the time of arrivals: arrivals fluctuate around one rate in each, the fluid is looked at finer


@dataclass(frozen=True, eq=False)
class Pool:
    """One link and who uses it. `bits`, `share`, `wait_s`: (kinds,), of a request; the shares add up to at most 1."""

    requests: float
    timing: Timing
    bits: Floats
    share: Floats
    wait_s: Floats  # from the request to the moment at which the edge has the model
    capacity_bit_s: float
    cap_bit_s: float

    @property
    def top_bit_s(self) -> float:
        """What one device gets where it is alone."""
        return min(self.cap_bit_s, self.capacity_bit_s)

    @property
    def fewest(self) -> float:
        """So many on the link slow nobody down."""
        return self.capacity_bit_s / self.top_bit_s


def share_in_time(pool: Pool, deadline_s: float) -> float:
    """Share of all requests that use this link and are done within the deadline."""
    if len(pool.bits) == 0 or pool.requests <= 0:
        return 0.0
    atoms = _merged(pool)
    if pool.timing.span_s == 0:
        return _at_once(atoms, deadline_s)
    return _over_time(atoms, deadline_s)


def _at_once(pool: Pool, deadline_s: float) -> float:
    """Exact for fixed shares: each kind begins when its wait is over, the smallest end first, the rate of the others rises."""
    starts = deque(sorted(zip(pool.wait_s.tolist(), pool.bits.tolist(), pool.share.tolist(), strict=True)))
    ends: list[tuple[float, float]] = []  # (attained service at the end, share)
    now, clock, present, met = 0.0, 0.0, 0.0, 0.0
    while starts or ends:
        rate = min(pool.cap_bit_s, pool.capacity_bit_s / max(present * pool.requests, 1.0))
        end = now + (ends[0][0] - clock) / rate if ends else math.inf
        begins = bool(starts) and starts[0][0] <= end
        clock, now = clock + rate * ((starts[0][0] if begins else end) - now), starts[0][0] if begins else end
        if now > deadline_s * (1 + 1e-9):
            break
        if begins:
            _, bits, share = starts.popleft()
            heapq.heappush(ends, (clock + bits, share))
            present += share
        else:
            clock, share = heapq.heappop(ends)
            present, met = present - share, met + share
    return met


def _over_time(pool: Pool, deadline_s: float) -> float:
    """Fluctuations around the fluid limit, slice by slice of the time of arrivals."""
    edges = pool.timing.grid(_SLICES * _FINE)
    heights, parts_s = pool.timing.cdf(edges), np.diff(edges[::_FINE])
    rates = pool.requests * np.diff(heights[::_FINE]) / parts_s
    left_s = np.maximum(deadline_s - pool.wait_s, 0.0)
    room = pool.capacity_bit_s * left_s / pool.bits  # (kinds,) on the link at most, so that each is done in time
    able = pool.bits <= pool.top_bit_s * left_s * (1 + 1e-9)
    if not able.any():
        return 0.0
    slow = _slowness(pool, deadline_s, (edges[:-1] + edges[1:]) / 2)
    met = np.empty_like(slow)
    for k, number in enumerate(queue.numbers(_load(pool), rates, parts_s, float(room[able].max()))):
        part = slice(k * _FINE, (k + 1) * _FINE)
        met[part] = number.at_most(room - 1 - (slow[part] - max(number.usual, pool.fewest))) * able
    return float(np.diff(heights) @ met @ pool.share)


def _slowness(pool: Pool, deadline_s: float, at_s: Floats) -> Floats:
    """(times, kinds) how many share the link, on average from a request until its deadline, if arrivals did not fluctuate."""
    times, attained = _fluid(pool, deadline_s)
    wait_s = np.minimum(pool.wait_s, deadline_s * (1 - 1e-6))
    begun = np.interp(at_s[:, None] + wait_s, times, attained)
    ended = np.interp(at_s + deadline_s, times, attained)[:, None]
    return pool.capacity_bit_s * (deadline_s - wait_s) / np.maximum(ended - begun, 1e-200)


def _load(pool: Pool) -> queue.Load:
    using = float(pool.share.sum())
    mean, second = float(pool.bits @ pool.share) / using, float(pool.bits**2 @ pool.share) / using
    return queue.Load(using, mean, second, pool.capacity_bit_s, pool.cap_bit_s)


def _fluid(pool: Pool, deadline_s: float) -> tuple[Floats, Floats]:
    """(times in s, attained service in bits) with as many requests on the link as expected."""
    span_s = pool.timing.span_s
    times = np.concatenate([pool.timing.grid(_STEPS), np.linspace(span_s, span_s + deadline_s, _AFTER + 1)[1:]])
    arrived, steps_s = pool.requests * pool.timing.cdf(times), np.diff(times)
    attained, all_share = np.zeros(len(times)), float(pool.share.sum())
    present = 0.0
    for k, step_s in enumerate(steps_s):
        attained[k + 1] = attained[k] + step_s * min(pool.cap_bit_s, pool.capacity_bit_s / max(present, 1.0))
        left = np.interp(attained[k + 1] - pool.bits, attained[: k + 2], arrived[: k + 2], left=0.0)
        present = arrived[k + 1] * all_share - float(pool.share @ left)
    return times, attained


def _merged(pool: Pool) -> Pool:
    """The same with at most a few hundred kinds: neighbours in waiting time and size are taken together."""
    order = np.lexsort((pool.bits, pool.wait_s))
    bits, share, wait = pool.bits[order], pool.share[order], pool.wait_s[order]
    waits = wait > 0
    parts = [_bins(bits[of], share[of], wait[of]) for of in (~waits, waits) if of.any()]
    bits, share, wait = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pool(pool.requests, pool.timing, bits, share, wait, pool.capacity_bit_s, pool.cap_bit_s)


def _bins(bits: Floats, share: Floats, wait: Floats) -> tuple[Floats, Floats, Floats]:
    same = np.flatnonzero((np.diff(bits, prepend=-1) != 0) | (np.diff(wait, prepend=-1) != 0))
    if len(same) > _ATOMS:
        level = np.minimum((np.cumsum(share) - share / 2) / share.sum() * _ATOMS, _ATOMS - 1).astype(int)
        same = np.flatnonzero(np.diff(level, prepend=-1))
    total = np.add.reduceat(share, same)
    return np.add.reduceat(bits * share, same) / total, total, np.add.reduceat(wait * share, same) / total
