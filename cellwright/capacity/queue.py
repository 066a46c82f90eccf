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
_MAX_STEPS, _MAX_STATES = 80_000, 1500  # of the process on its way there
_SETTLED = 8  # times its relaxation time


@dataclass(frozen=True, eq=False)
class Load:
    """One link. `most`: (kinds,) others whom a request may find and still be done in time; -1: never in time."""

    using: float  # share of the requests that use it
    mean_bits: float
    second_bits2: float
    capacity_bit_s: float
    cap_bit_s: float
    most: Floats

    def leaving_s(self, states: int) -> Floats:
        """(states,) requests that end in a second with 0, 1, 2 … on the link."""
        return np.minimum(np.arange(states) * self.cap_bit_s, self.capacity_bit_s) / self.mean_bits * (np.arange(states) > 0)

    def settling_s(self, rate_s: float) -> float:
        """Relaxation time of the number on the link; infinite where the link is overloaded."""
        load = rate_s * self.using * self.mean_bits / self.capacity_bit_s
        if load >= 1:
            return float("inf")
        return self.second_bits2 / (2 * self.mean_bits) / self.capacity_bit_s / (1 - float(np.sqrt(load))) ** 2


def in_time(load: Load, rates_s: Floats, span_s: float) -> Floats:
    """(slices, kinds) probability to find few enough others, with `rates_s` requests a second in each slice of the span.

    Who finds n others is taken to get capacity / (n + 1) to the end: in heavy traffic, and there only does it matter, their
    number hardly changes meanwhile (the snapshot principle). Where the number neither settles nor can be followed at bearable
    cost (more than some 30,000 requests a link), fluctuations are small beside it and 1 is returned: the fluid limit decides.
    """
    part_s = span_s / len(rates_s)
    settled = np.array([load.settling_s(rate) * _SETTLED < part_s for rate in rates_s])
    upto: list[Floats | None]
    if settled.all():
        known = {rate: _long_run(load, rate) for rate in set(rates_s.tolist())}
        upto = [known[rate] for rate in rates_s.tolist()]
    else:
        upto = _followed(load, rates_s, span_s)
    return np.array([np.ones(len(load.most)) if found is None else _at(found, load.most) for found in upto])


def _at(upto: Floats, most: Floats) -> Floats:
    """(kinds,) probability to find at most so many; 1 for more than were looked at."""
    index = np.clip(most, 0, len(upto) - 1).astype(int)
    return np.where(most < 0, 0.0, np.where(most >= len(upto), 1.0, upto[index]))


def _long_run(load: Load, rate_s: float) -> Floats:
    """(states,) probability of so many or fewer."""
    used = rate_s * load.using * load.mean_bits / load.capacity_bit_s
    states = min(_MAX_PRESENT, int(20 + 2 * load.capacity_bit_s / min(load.cap_bit_s, load.capacity_bit_s) + 40 / (1 - used)))
    if rate_s <= 0:
        return np.ones(1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(rate_s * load.using / load.leaving_s(states)[1:]))])
    weights = np.exp(logs - logs.max())
    return np.asarray(np.cumsum(weights) / weights.sum())


def _followed(load: Load, rates_s: Floats, span_s: float) -> list[Floats | None]:
    """For each slice, (states,) probability of so many or fewer in its middle; begun with nobody there."""
    speed = 2 * load.mean_bits**2 / load.second_bits2
    states = int(np.clip(4 * load.most.max(initial=0.0) + 60, 100, _MAX_STATES))
    leaving = speed * load.leaving_s(states)
    coming = speed * load.using * rates_s
    half_s = span_s / len(rates_s) / 2
    steps = np.ceil(half_s * (coming + leaving[-1]) / 0.9).astype(int) + 1
    if 2 * steps.sum() > _MAX_STEPS:
        return [None] * len(rates_s)
    now, found = np.eye(1, states)[0], list[Floats | None]()
    for rate, count in zip(coming, steps, strict=True):
        now = _walk(now, rate, leaving, half_s / count, count)
        found.append(np.cumsum(now))
        now = _walk(now, rate, leaving, half_s / count, count)
    return found


def _walk(now: Floats, rate_s: float, leaving_s: Floats, step_s: float, steps: int) -> Floats:
    """The distribution after so many explicit steps, each short enough that no probability turns negative."""
    now, up, down = now.copy(), rate_s * step_s, leaving_s[1:] * step_s
    for _ in range(steps):
        flow = now[:-1] * up - now[1:] * down
        now[:-1] -= flow
        now[1:] += flow
    return now
