"""How many requests are on a shared link when another comes, with arrivals that fluctuate (a birth-death process).

In the long run their number has a product form that knows of the sizes no more than their mean (processor sharing is
insensitive). Before that, it moves as with exponential sizes, only faster or slower by 2 E[B]² / E[B²]: exact in the limit of
heavy traffic, where the number is a reflected Brownian motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellwright.capacity.population import Floats

_MAX_PRESENT = 200_000  # states of the product form
_MIN_STATES, _MAX_STATES = 100, 6000  # of the process on its way there
_STEPS = 64  # of half a slice
_SETTLED = 8  # times its relaxation time


@dataclass(frozen=True)
class Load:
    """One link and the sizes of the requests that use it; `using`: their share of all requests."""

    using: float
    mean_bits: float
    second_bits2: float
    capacity_bit_s: float
    cap_bit_s: float

    def leaving_s(self, states: int) -> Floats:
        """(states,) requests that end in a second with 0, 1, 2 … on the link."""
        return np.minimum(np.arange(states) * self.cap_bit_s, self.capacity_bit_s) / self.mean_bits

    def settling_s(self, rate_s: float) -> float:
        """Relaxation time of the number on the link; infinite where the link is overloaded."""
        load = rate_s * self.using * self.mean_bits / self.capacity_bit_s
        if load >= 1:
            return float("inf")
        return self.second_bits2 / (2 * self.mean_bits) / self.capacity_bit_s / (1 - float(np.sqrt(load))) ** 2


@dataclass(frozen=True, eq=False)
class Number:
    """The number on the link at a moment. `usual`: what it would be without fluctuations."""

    upto: Floats  # (states,) probability of so many or fewer
    usual: float

    def at_most(self, others: Floats) -> Floats:
        """Probability of at most so many others.

        `others` is what leaves just enough of the link: a continuous time compared with a count, so half of the probability of
        the count itself is taken (and what is between two counts is interpolated).
        """
        return np.interp(others - 0.5, np.arange(-1, len(self.upto)), np.concatenate([[0.0], self.upto]))


def numbers(load: Load, rates_s: Floats, parts_s: Floats, most: float) -> list[Number]:
    """The number in the middle of each slice of the time, begun with nobody there.

    `rates_s`, `parts_s`: (slices,) requests a second in each, and its length; `most`: the largest number that matters.
    """
    if all(load.settling_s(rate) * _SETTLED < part_s for rate, part_s in zip(rates_s, parts_s, strict=True)):
        alone = load.using * load.mean_bits / load.cap_bit_s
        known = {rate: Number(_long_run(load, rate), rate * alone) for rate in set(rates_s.tolist())}
        return [known[rate] for rate in rates_s.tolist()]
    return _followed(load, rates_s, parts_s, most)


def _long_run(load: Load, rate_s: float) -> Floats:
    """(states,) probability of so many or fewer."""
    used = rate_s * load.using * load.mean_bits / load.capacity_bit_s
    states = min(_MAX_PRESENT, int(20 + 2 * load.capacity_bit_s / min(load.cap_bit_s, load.capacity_bit_s) + 40 / (1 - used)))
    if rate_s <= 0:
        return np.ones(1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(rate_s * load.using / load.leaving_s(states)[1:]))])
    weights = np.exp(logs - logs.max())
    return np.asarray(np.cumsum(weights) / weights.sum())


def _followed(load: Load, rates_s: Floats, parts_s: Floats, most: float) -> list[Number]:
    speed = 2 * load.mean_bits**2 / load.second_bits2
    states = int(np.clip(4 * most + 60, _MIN_STATES, _MAX_STATES))
    leaving = speed * load.leaving_s(states)
    now, usual, found = np.eye(1, states)[0], 0.0, list[Number]()
    for rate, step_s in zip((speed * load.using * rates_s).tolist(), (parts_s / 2 / _STEPS).tolist(), strict=True):
        for middle in (True, False):
            now = _walked(now, rate, leaving, step_s)
            usual = min(_drifted(usual, rate, load, speed, step_s), states - 1.0)  # as the process is
            if middle:
                found.append(Number(np.cumsum(now), usual))
    return found


def _walked(now: Floats, rate_s: float, leaving_s: Floats, step_s: float) -> Floats:
    """The distribution after half a slice: backward Euler steps, which stay positive however long they are."""
    from scipy.linalg import solve_banded  # type: ignore[import-untyped]

    up = np.full(len(now), rate_s * step_s)
    up[-1] = 0.0
    down = leaving_s * step_s
    bands = np.zeros((3, len(now)))
    bands[0, 1:], bands[1], bands[2, :-1] = -down[1:], 1 + up + down, -up[:-1]
    for _ in range(_STEPS):
        now = solve_banded((1, 1), bands, now, check_finite=False)
    return now


def _drifted(usual: float, rate_s: float, load: Load, speed: float, step_s: float) -> float:
    """The number after half a slice without fluctuations."""
    top = load.capacity_bit_s / load.mean_bits * speed
    slope = load.cap_bit_s / load.mean_bits * speed
    for _ in range(_STEPS):  # backward Euler: below the cap's knee it relaxes, above it drifts
        low = (usual + step_s * rate_s) / (1 + step_s * slope)
        usual = low if low * slope <= top else max(usual + step_s * (rate_s - top), 0.0)
    return usual
