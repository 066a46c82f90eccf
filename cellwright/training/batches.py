"""Batches: windows drawn by (seed, epoch) and gathered whole, without a Python step for each window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellwright.data.windows import Windows
from cellwright.forecaster import Forecaster
from models._contract import Batch

LEAST_ORIGINS = 8  # of a network that takes all sites at once: fewer make its steps too noisy
_CLOSED_FORM_VALUES = 4_000_000  # values of x a batch: 16 MB


class Loaded(NamedTuple):
    """One batch in raw units, as tensors."""

    history: Tensor
    known: Tensor
    target: Tensor
    mask: Tensor
    site: Tensor


def derived_seed(seed: int, *path: int) -> int:
    """An independent seed for each (seed, path): equal arguments give equal seeds, on any machine."""
    return int(np.random.SeedSequence([seed & 0xFFFF_FFFF, *path]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Pool:
    """All windows of a span. A window is one site's at one origin, or, with inputs "all", one origin with every site."""

    windows: Windows
    origins: np.ndarray

    @property
    def sites(self) -> int:
        """Sites that are drawn apart: 1 where a network takes them all."""
        return 1 if self.windows.problem.inputs == "all" else self.windows.sites

    @property
    def site_windows(self) -> int:
        """How many windows of one site there are."""
        return len(self.origins) * self.windows.sites

    def __len__(self) -> int:
        return len(self.origins) * self.sites

    def count(self, site_windows: int) -> int:
        """How many draws make about that many windows of one site, and at least a few."""
        if self.windows.problem.inputs != "all":
            return site_windows
        return max(LEAST_ORIGINS, site_windows // self.windows.sites)

    def load(self, index: np.ndarray) -> Loaded:
        """Gather the windows of these numbers (0 … len - 1)."""
        site = index % self.sites
        raw = self.windows.raw(self.origins[index // self.sites], site)
        return Loaded(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (*raw, site)))


class Drawn:
    """The training batches: an iterable that shuffles anew for each epoch, by (seed, epoch) alone.

    `done`: batches of the epoch that were trained on before a pause; they are left out.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        batch: int,
        windows_per_epoch: int | None,
        seed: int,
        epoch: Callable[[], int],
        done: Callable[[], int] = lambda: 0,
    ) -> None:
        self.pool, self.seed, self.epoch, self.done = pool, seed, epoch, done
        self.batch = pool.count(batch)
        self.draws = len(pool) if windows_per_epoch is None else min(len(pool), pool.count(windows_per_epoch))

    def __len__(self) -> int:
        return math.ceil(self.draws / self.batch) - self.done()

    def __iter__(self) -> Iterator[Loaded]:
        rng = np.random.default_rng(derived_seed(self.seed, 1, self.epoch()))
        order = rng.permutation(len(self.pool)) if self.draws == len(self.pool) else self._some(rng)
        for first in range(self.done() * self.batch, self.draws, self.batch):
            yield self.pool.load(order[first : first + self.batch])

    def _some(self, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(len(self.pool), self.draws, replace=False)


class Fixed:
    """Batches of the same windows in the same order, every time; `limit` takes a seeded sample of them."""

    def __init__(self, pool: Pool, *, batch: int, limit: int | None = None, seed: int = 0) -> None:
        self.pool, self.batch = pool, pool.count(batch)
        kept = len(pool) if limit is None else min(len(pool), pool.count(limit))
        rng = np.random.default_rng(derived_seed(seed, 2))
        self.index = np.arange(len(pool)) if kept == len(pool) else np.sort(rng.choice(len(pool), kept, replace=False))

    def __len__(self) -> int:
        return math.ceil(len(self.index) / self.batch)

    def __iter__(self) -> Iterator[Loaded]:
        for first in range(0, len(self.index), self.batch):
            yield self.pool.load(self.index[first : first + self.batch])


class Scaled:
    """Windows of a span, in order, as the normalised batches that a closed form is fitted on; can be run through many times.

    All of them, or an even sample of at most `most`: one of each stretch of equal length, drawn by the seed, so that it falls into
    step neither with the sites nor with the hours of the day.
    """

    def __init__(self, pool: Pool, forecaster: Forecaster, *, most: int | None = None, seed: int = 0) -> None:
        problem = pool.windows.problem
        values = problem.history * problem.nodes * len(problem.features)
        self.pool, self.forecaster, self.batch = pool, forecaster, max(1, _CLOSED_FORM_VALUES // values)
        self.index = np.arange(len(pool)) if most is None or most >= len(pool) else _even(len(pool), most, seed)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.index), self.batch):
            yield scaled(self.forecaster, self.pool.load(self.index[first : first + self.batch]))


def _even(count: int, most: int, seed: int) -> np.ndarray:
    """(most,) int64, ascending: a number of each of `most` equal stretches of 0 … count - 1."""
    within = np.random.default_rng(derived_seed(seed, 5)).random(most)
    return np.minimum(((np.arange(most) + within) * (count / most)).astype(np.int64), count - 1)


def scaled(forecaster: Forecaster, loaded: Loaded) -> Batch:
    """Normalise a batch; masked targets become 0."""
    x = forecaster.normalise(loaded.history, loaded.site)
    y = forecaster.normalise_target(loaded.target, loaded.site)
    return Batch(x, loaded.known, torch.where(loaded.mask, y, torch.zeros_like(y)), loaded.mask)
