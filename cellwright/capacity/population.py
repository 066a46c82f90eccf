"""The catalogue as arrays: how large each model is and how often it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellwright.capacity.config import Catalogue, Fixed, Listed, LogUniform

_PLACING_SEED = 20_260_101  # which model has which size: the same in every plan, so that plans compare

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Population:
    """`size_bytes`, `popularity`: (models,); the most popular first, popularity adding up to 1."""

    size_bytes: Floats
    popularity: Floats


def population(catalogue: Catalogue) -> Population:
    """Popularity by Zipf's law (rank to the power of -zipf); sizes spread over the models whatever their popularity."""
    ranks = np.arange(1, catalogue.models + 1, dtype=np.float64)
    weights = ranks**-catalogue.zipf
    middles = (np.arange(catalogue.models) + 0.5) / catalogue.models
    sizes = quantile(catalogue.size, middles)
    return Population(np.random.default_rng(_PLACING_SEED).permutation(sizes), weights / weights.sum())


def quantile(size: Fixed | Listed | LogUniform, levels: Floats) -> Floats:
    """Sizes, in bytes, below which these shares (0 to 1) of the models lie."""
    if isinstance(size, Fixed):
        return np.full(len(levels), size.size_bytes)
    if isinstance(size, LogUniform):
        return size.low_bytes * (size.high_bytes / size.low_bytes) ** levels
    listed = sorted(size.sizes, key=lambda s: s.size_bytes)
    steps = np.cumsum([s.share for s in listed])[:-1]
    return np.array([s.size_bytes for s in listed])[np.searchsorted(steps, levels, side="right")]
