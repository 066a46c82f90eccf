"""Clipping, and Gaussian noise that nobody can draw again."""

from __future__ import annotations

import os

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays

_MARGIN = 1 - 2**-20  # a clipped update stays within the norm when it is rounded to float32


def norm(arrays: Arrays) -> float:
    """L2 norm over all values of an update."""
    return float(np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays.values())))


def clipped(arrays: Arrays, most: float) -> Arrays:
    """The update, shrunk as a whole where its L2 norm is over `most`.

    Raises:
        FederationError: it holds a value that is not finite, so that no norm bounds it.
    """
    length = norm(arrays)
    if not np.isfinite(length):
        raise FederationError(
            "the update holds values that are not finite, so that it cannot be clipped; lower the learning rate"
        )
    if length <= most:
        return arrays
    factor = most / length * _MARGIN
    return {name: (a * factor).astype(a.dtype) for name, a in arrays.items()}


def noisy(arrays: Arrays, std: float, rng: np.random.Generator | None) -> Arrays:
    """The arrays with Gaussian noise on every value. `rng`: None draws from the operating system's entropy."""
    return {name: (a + gaussian(a.shape, std, rng)).astype(a.dtype) for name, a in arrays.items()}


def gaussian(shape: tuple[int, ...], std: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Noise with standard deviation `std`, float64.

    From entropy it is the sum of four draws, halved: the low bits of a single draw tell too much of what it was added to
    (Mironov, CCS 2012; Holohan and Braghin, ESORICS 2021).
    """
    count = int(np.prod(shape, dtype=np.int64))
    if rng is not None:
        return rng.normal(0.0, std, shape)
    return (std / 2 * _standard(4 * count).reshape(4, count).sum(0)).reshape(shape)


def _standard(count: int) -> np.ndarray:
    """Standard normal values by Box and Muller's transform of uniform ones, (count,) float64."""
    half = (count + 1) // 2
    uniform = _uniform(2 * half)
    radius, angle = np.sqrt(-2 * np.log(uniform[:half])), 2 * np.pi * uniform[half:]
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]


def _uniform(count: int) -> np.ndarray:
    """Values strictly between 0 and 1 with 52 random bits each, (count,) float64."""
    bits = np.frombuffer(os.urandom(8 * count), np.uint64)
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
