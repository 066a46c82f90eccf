"""When requests arrive: one distribution of the time of a request, for the formulas and for the simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellwright.capacity.config import AtOnce, Burst, Diurnal, Poisson
from cellwright.capacity.population import Floats

DAY_S = 86_400.0
_GRID = 8_001


@dataclass(frozen=True, eq=False)
class Timing:
    """The time of a request, in s from the first possible one.

    `fixed`: the number of requests is known (each device asks once); else it is Poisson, as in a stationary process.
    """

    grid_s: Floats
    share: Floats  # of requests up to each time of the grid; linear between
    fixed: bool

    @property
    def span_s(self) -> float:
        """Length of the time in which requests arrive; 0: all at once."""
        return float(self.grid_s[-1])

    def cdf(self, times_s: Floats) -> Floats:
        """Share of the requests that came up to and at these times."""
        if self.span_s == 0:
            return np.where(times_s >= 0, 1.0, 0.0)
        return np.interp(times_s, self.grid_s, self.share, left=0.0, right=1.0)

    def grid(self, parts: int) -> Floats:
        """(parts + 1,) times from the first to the last possible request: half of them follow the clock, half the requests."""
        both = (self.grid_s / self.span_s + self.share) / 2
        return np.interp(np.linspace(0, 1, parts + 1), both, self.grid_s)

    def sample(self, count: int, rng: np.random.Generator) -> Floats:
        """Times of `count` independent requests, in s, ascending."""
        if self.span_s == 0:
            return np.zeros(count)
        return np.interp(np.sort(rng.random(count)), self.share, self.grid_s)

    def busiest_share(self, window_s: float) -> float:
        """Largest share of the requests that falls into any window of this length."""
        return float(np.max(self._windows(window_s)[1]))

    def near_peak_s(self, window_s: float, decay: float) -> float:
        """How long windows are about as full as the fullest: each counts exp(-decay × what it lacks of the largest share)."""
        ends, share = self._windows(window_s)
        return float(np.trapezoid(np.exp(-decay * (share.max() - share)), ends)) if self.span_s > 0 else 0.0

    def _windows(self, window_s: float) -> tuple[Floats, Floats]:
        """(ends in s, share of the requests in the window before each)."""
        ends = np.unique(np.concatenate([self.grid_s, self.grid_s + window_s]))
        before = self.cdf(ends - window_s) if self.span_s > 0 else np.zeros(len(ends))
        return ends, self.cdf(ends) - before


def timing(arrivals: AtOnce | Poisson | Diurnal | Burst, stagger_s: float = 0.0) -> Timing:
    """The pattern, with each request put off by a uniform time of up to `stagger_s`."""
    return staggered(_plain(arrivals), stagger_s)


def staggered(plain: Timing, window_s: float) -> Timing:
    """The cdf of the sum with a uniform time is the mean of the cdf over the window before."""
    if window_s <= 0:
        return plain
    if plain.span_s == 0:
        return Timing(np.array([0.0, window_s]), np.array([0.0, 1.0]), plain.fixed)
    grid = np.linspace(0, plain.span_s + window_s, _GRID)
    heights = plain.cdf(grid)
    area = np.concatenate([[0.0], np.cumsum((heights[1:] + heights[:-1]) / 2 * np.diff(grid))])
    shifted = np.interp(grid - window_s, grid, area, left=0.0)
    share = (area - shifted) / window_s
    return Timing(grid, np.clip(share / share[-1], 0, 1), plain.fixed)


def _plain(arrivals: AtOnce | Poisson | Diurnal | Burst) -> Timing:
    if isinstance(arrivals, AtOnce):
        return Timing(np.zeros(1), np.ones(1), fixed=True)
    if isinstance(arrivals, Poisson):
        return Timing(np.array([0.0, arrivals.duration_s]), np.array([0.0, 1.0]), fixed=False)
    if isinstance(arrivals, Diurnal):
        grid = np.linspace(0, DAY_S, _GRID)
        phase = 2 * np.pi * (grid - arrivals.peak_h * 3600) / DAY_S
        swing = arrivals.amplitude * DAY_S / (2 * np.pi) * (np.sin(phase) - np.sin(phase[0]))
        return Timing(grid, (grid + swing) / DAY_S, fixed=False)
    grid = np.linspace(0, arrivals.duration_s, _GRID)
    crowd = np.array([math.erf((t - arrivals.at_s) / arrivals.width_s / math.sqrt(2)) for t in grid])
    crowd = (crowd - crowd[0]) / (crowd[-1] - crowd[0])  # who would come before or after is left out
    return Timing(grid, arrivals.share * crowd + (1 - arrivals.share) * grid / arrivals.duration_s, fixed=True)


def requests(arrivals: AtOnce | Poisson | Diurnal | Burst, devices: float, area_km2: float) -> float:
    """How many requests there are, or, where they are random, how many are expected."""
    if isinstance(arrivals, Poisson) and arrivals.rate_per_km2_s is not None:
        return arrivals.rate_per_km2_s * arrivals.duration_s * area_km2
    return devices * arrivals.fetches_per_device if isinstance(arrivals, Diurnal) else devices
