"""Randomness and arithmetic with the same bits on every CPU.

Only +, -, ·, ÷ and √ are used, element by element: IEEE 754 rounds each of them correctly, so every CPU agrees. exp, log and sin
are not so defined (their last bit depends on the vector unit), nor is the order in which `sum` or a matrix product adds.
Random bits come from PCG64's raw output, which NumPy guarantees from version to version (NEP 19), unlike `Generator.normal`.
"""

from __future__ import annotations

import numpy as np

_HALFWORD_SD = 37837.227  # of the sum of four uniform 16-bit integers


def stream(seed: int, *key: int) -> np.random.Generator:
    """An independent generator for one purpose (`key`: which, which day …), whatever else is drawn."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def raw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """`shape` random 64-bit integers."""
    bits: np.ndarray = np.asarray(rng.bit_generator.random_raw(int(np.prod(shape))), dtype=np.uint64)
    return bits.reshape(shape)


def uniform(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """`shape` numbers in [0, 1)."""
    return (raw(rng, *shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """`shape` numbers of mean 0 and variance 1, symmetric and nearly Gaussian, within ±3.5: sums of four 16-bit integers."""
    parts = halfwords(raw(rng, *shape))
    total = (parts[..., 0] + parts[..., 1]) + (parts[..., 2] + parts[..., 3])
    return (total - 131070.0) / _HALFWORD_SD


def halfwords(bits: np.ndarray) -> np.ndarray:
    """The four 16-bit parts of 64-bit integers, as float64 along a new last axis."""
    return np.stack([((bits >> np.uint64(s)) & np.uint64(0xFFFF)).astype(np.float64) for s in (0, 16, 32, 48)], axis=-1)


def growth(z: np.ndarray) -> np.ndarray:
    """(1 + z/32)³², which is close to e^z for |z| < 2, monotone above -32, and exact everywhere."""
    power = 1.0 + z / 32.0
    for _ in range(5):
        power = power * power
    return power


def saturate(demand: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """Traffic that a cell of `capacity` carries of `demand`: C · u / √(1 + u²), u = demand / capacity."""
    load = demand / capacity
    return capacity * load / np.sqrt(1.0 + load * load)


def rounded(values: np.ndarray, per_unit: int) -> np.ndarray:
    """Values on a grid of 1 / per_unit, as float32."""
    return (np.rint(values * per_unit) / per_unit).astype(np.float32)
