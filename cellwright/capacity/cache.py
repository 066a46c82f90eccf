"""Caches of edges that forget the least recently used model: Che's approximation (Che, Tung, Wang 2002), sizes considered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cellwright.capacity.population import Floats

_ROUNDS = 200


@dataclass(frozen=True, eq=False)
class Waits:
    """(models,) share of the requests that find their model not at the edge yet, and how long these wait on average."""

    share: Floats
    wait_s: Floats

    @property
    def any(self) -> bool:
        """Whether the cache ever misses."""
        return bool(np.any(self.share > 0))


def hit_rates(popularity: Floats, size_bytes: Floats, disk_bytes: float) -> Floats:
    """(models,) probability that a request finds the model, with independent requests.

    The characteristic time T, in requests, solves sum of size_i (1 - exp(-popularity_i T)) = disk; a model is there if it was
    asked for within T. A model larger than the disk is never kept.
    """
    fits = size_bytes <= disk_bytes
    if float(size_bytes[fits].sum()) <= disk_bytes:
        return fits.astype(np.float64)
    held = np.where(fits, size_bytes, 0.0)
    time = _solve(lambda t: float(held @ -np.expm1(-popularity * t)), disk_bytes)
    return np.where(fits, -np.expm1(-popularity * time), 0.0)


def disk_for(popularity: Floats, size_bytes: Floats, hit_rate: float) -> float:
    """Bytes of disk at which this share of the requests finds its model; all of the catalogue for 1."""
    if hit_rate >= 1:
        return float(size_bytes.sum())
    time = _solve(lambda t: float(popularity @ -np.expm1(-popularity * t)), hit_rate)
    return max(float(size_bytes @ -np.expm1(-popularity * time)), float(size_bytes.max()))


def waits(hit: Floats, model_bits: Floats, requests_of: Floats, span_s: float, origin_bit_s: float) -> Waits:
    """Who waits for the origin at one edge, and how long.

    `requests_of`: (models,) requests for each model at this edge. A model that is missing is fetched once, whole, and all who
    ask for it meanwhile wait with the first. The origin's link is shared evenly (M/G/1 processor sharing).
    """
    if np.all(hit >= 1):
        return Waits(np.zeros(len(hit)), np.zeros(len(hit)))
    if span_s == 0:
        return Waits(1 - hit, _together(hit, model_bits, requests_of, origin_bit_s))
    rate, alone = requests_of / span_s, model_bits / origin_bit_s
    fetches = rate * (1 - hit) / (1 + rate * (1 - hit) * alone)
    load = float(fetches @ alone)
    if load >= 1:
        return Waits(1 - hit, np.full(len(hit), np.inf))
    fetch_s = alone / (1 - load)
    beside = rate * fetch_s  # requests that come while the model is on its way
    hits_between = hit / np.maximum(1 - hit, 1e-300)
    share = np.where(hit >= 1, 0.0, (1 + beside) / (1 + beside + hits_between))
    return Waits(share, fetch_s * (1 + beside / 2) / (1 + beside))


def _together(hit: Floats, model_bits: Floats, requests_of: Floats, origin_bit_s: float) -> Floats:
    """(models,) s until each is there if all that are missing and asked for are fetched from the same moment on."""
    missing = (1 - hit) * -np.expm1(-requests_of)
    order = np.argsort(model_bits)
    steps = np.diff(model_bits[order], prepend=0.0)
    larger = np.cumsum(missing[order][::-1])[::-1]
    at = np.empty(len(hit))
    at[order] = np.cumsum(steps * np.maximum(larger, 1.0)) / origin_bit_s
    return at


def _solve(rising: Callable[[float], float], wanted: float) -> float:
    """The argument, above 0, at which a rising function reaches `wanted`; by bisection on a logarithmic scale."""
    low, high = 0.0, 1.0
    while rising(high) < wanted and high < 1e300:
        low, high = high, high * 4
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
        if high - low <= 1e-12 * high:
            break
    return high
