"""What the levers leave of the demand, and the rate that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cellwright.capacity.config import Lever, PlanEdge
from cellwright.capacity.population import Floats, population
from cellwright.capacity.timing import Timing, requests, timing

MAX_UNITS = 10**9


@dataclass(frozen=True)
class Broadcast:
    """One stream a cell that carries the most popular models one after another."""

    stream_bit_s: float
    cycle_s: float  # one pass over its models; a device that joins at any moment is done after one
    models: int


@dataclass(frozen=True, eq=False)
class Demand:
    """Requests of the whole area. A share `cached` needs no transfer, `joined` takes the broadcast, the rest is unicast.

    `bits`, `share`, `model`: (kinds,), what a unicast request transfers, as a share of all requests, and of which model.
    """

    requests: float
    timing: Timing
    deadline_s: float
    cached: float
    joined: float
    broadcast: Broadcast | None
    bits: Floats
    share: Floats
    model: NDArray[np.int64]
    model_bits: Floats  # (models,) whole files, as the edges hold them
    popularity: Floats  # (models,)

    @property
    def unicast(self) -> float:
        """Share of the requests that are served one by one."""
        return float(self.share.sum())

    def mean_bit_s(self, count: float | None = None) -> float:
        """Mean unicast rate from the first request to the last deadline. `count`: requests, where not all."""
        count = self.requests if count is None else count
        return count * float(self.bits @ self.share) / (self.timing.span_s + self.deadline_s)

    def peak_bit_s(self, confidence: float, count: float | None = None) -> float:
        """Unicast rate that is, with this probability, never exceeded where each transfer takes the whole deadline.

        A request occupies bits / deadline for the deadline, so the sum over the requests of the last deadline counts. Its
        first three moments are exact (M_t/G/infinity with constant service); the quantile is a normal's, corrected for skew
        (Cornish-Fisher), at a level that holds in all of the time. `count`: requests, where not all are meant.
        """
        count = self.requests if count is None else count
        within = self.timing.busiest_share(self.deadline_s)
        first, second, third = (within * float(self.bits**power @ self.share) for power in (1, 2, 3))
        if self.timing.fixed:
            second, third = second - first**2, third - 3 * first * second + 2 * first**3
        mean, spread = count * first, math.sqrt(max(count * second, 0.0))
        if spread <= 1e-9 * mean:
            return mean / self.deadline_s
        z = self._z(confidence, count * within * self.unicast, mean / within / spread)
        skew = count * third / spread**3
        peak = mean + spread * (z + (z * z - 1) * skew / 6)
        if self.timing.fixed:  # no more can ask than there are: the tail goes beyond where they are few
            peak = min(peak, count * float(self.bits.max(initial=0.0)))
        return peak / self.deadline_s

    def _z(self, confidence: float, present: float, slope: float) -> float:
        """Standard deviations that the busiest window must not exceed so that none does.

        With `present` requests in a window, the sliding sum crosses a level from below about z sqrt(present) times as often as
        windows laid end to end do (upcrossings of a Poisson count; they come in clusters, so this errs upwards). Windows that
        lack d of the busiest one's mean, in standard deviations (`slope` times what they lack of its share), count exp(-z d).
        """
        far = _normal(confidence, 1 + self.timing.span_s / self.deadline_s)
        ends = self.timing.near_peak_s(self.deadline_s, max(far, 1.0) * slope) / self.deadline_s
        z = _normal(confidence, 1 + ends)
        return _normal(confidence, 1 + ends * max(1.0, z * math.sqrt(present)))

    def units_needed(self, confidence: float, unit_bit_s: float) -> int | None:
        """Fewest equal servers, each with its part of the requests, whose peak fits into `unit_bit_s`.

        None: no number is enough, since a single request asks for more.
        """
        stream = self.broadcast.stream_bit_s if self.broadcast else 0.0
        return fewest(lambda units: self.peak_bit_s(confidence, self.requests_of_one(units)) + stream <= unit_bit_s * (1 + 1e-12))

    def requests_of_one(self, units: int) -> float:
        """Requests of the busiest of so many servers among which they are dealt evenly."""
        return math.ceil(self.requests / units - 1e-9) if self.timing.fixed else self.requests / units


def _normal(confidence: float, windows: float) -> float:
    """Standard deviations within which so many independent normal values all stay, with this probability."""
    return -NormalDist().inv_cdf(max(-math.expm1(math.log(confidence) / windows), 1e-300))


def fewest(fits: Callable[[int], bool]) -> int | None:
    """Smallest count that `fits` (monotone), or None if none up to MAX_UNITS does."""
    high = 1
    while not fits(high):
        high *= 2
        if high > MAX_UNITS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def demand(config: PlanEdge, use: tuple[Lever, ...]) -> Demand:
    """The demand with these levers; those not named change nothing."""
    levers, catalogue = config.levers, population(config.catalogue)
    count = requests(config.arrivals, config.devices_per_km2 * config.area_km2, config.area_km2)
    when = timing(config.arrivals, levers.stagger_window_s if "staggering" in use else 0.0)
    model_bits = 8 * catalogue.size_bytes * (levers.quantisation_ratio if "quantisation" in use else 1.0)
    cached = levers.device_cache_share if "device_cache" in use else 0.0
    broadcast = _broadcast(config, model_bits) if "multicast" in use else None
    joining = np.zeros(len(model_bits))
    if broadcast:
        joining[: broadcast.models] = levers.multicast_share * _on_air(levers.multicast_repeats, broadcast, when)
    alone = (1 - cached) * catalogue.popularity * (1 - joining)
    bits, share, model = _kinds(model_bits, alone, levers.delta_share if "delta" in use else 0.0, levers.delta_ratio)
    joined = (1 - cached) * float(catalogue.popularity @ joining)
    return Demand(count, when, config.deadline_s, cached, joined, broadcast, bits, share, model, model_bits, catalogue.popularity)


def _broadcast(config: PlanEdge, model_bits: Floats) -> Broadcast:
    models = min(config.levers.multicast_models, len(model_bits))
    total = float(model_bits[:models].sum())
    rate = config.levers.multicast_bit_s or total / config.deadline_s
    return Broadcast(rate, total / rate, models)


def _on_air(repeats: int | None, broadcast: Broadcast, when: Timing) -> float:
    """Share of the requests that come early enough to receive a whole pass."""
    if repeats is None:
        return 1.0
    return float(when.cdf(np.array([(repeats - 1) * broadcast.cycle_s]))[0])


def _kinds(model_bits: Floats, alone: Floats, delta_share: float, delta_ratio: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Whole files and, where that lever is used, deltas: (bits, share, model)."""
    models = np.arange(len(model_bits))
    bits = np.concatenate([model_bits, model_bits * delta_ratio])
    share = np.concatenate([alone * (1 - delta_share), alone * delta_share])
    kept = share > 0
    return bits[kept], share[kept], np.concatenate([models, models])[kept]
