"""How far predictive quantiles can be relied on: one pass over a span's quantiles, from which the calibration KPIs are read.

Legend: W windows, F horizon, S sites, T targets, Q levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cellwright.conformal import COVERAGES
from cellwright.results import Calibration

_VALUES_AT_ONCE = 4_000_000  # quantiles of a chunk of windows: 16 MB


class Sliced(Protocol):
    """Quantiles (W, F, S, T, Q), ascending along Q: an array, or what computes a slice of windows when it is asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, some: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Reliability:
    """What a pass over the quantiles leaves.

    `shares` is the PIT histogram (probability integral transform): the share of the truth between two neighbouring levels, the
    ends included, so that it has one more entry than there are levels. A truth that equals several quantiles at once (a load of
    0, where the quantiles are held at 0) is shared out among the bins that it lies between, by their nominal widths.
    """

    levels: tuple[float, ...]
    shares: np.ndarray  # (Q + 1,) adds up to 1
    pinball: np.ndarray  # (Q,) twice the mean pinball loss at each level
    mean: np.ndarray  # (Q,) mean quantile

    @property
    def widths(self) -> np.ndarray:
        """(Q + 1,) nominal share of each bin."""
        return np.diff([0.0, *self.levels, 1.0])

    def coverage(self, nominal: float) -> float:
        """Observed coverage of the central interval of that nominal coverage."""
        low, high = self._ends(nominal)
        return float(self.shares[low + 1 : high + 1].sum())

    def width(self, nominal: float) -> float:
        """Mean width of the central interval of that nominal coverage."""
        low, high = self._ends(nominal)
        return float(self.mean[high] - self.mean[low])

    def stored(self) -> Calibration:
        """As it is kept with a score."""
        found = {f"{nominal:g}": self.coverage(nominal) for nominal in COVERAGES}
        return Calibration(levels=self.levels, shares=tuple(self.shares.tolist()), coverage=found)

    def _ends(self, nominal: float) -> tuple[int, int]:
        """Which levels bound the central interval.

        Raises:
            ValueError: the levels do not hold it.
        """
        tail = (1 - nominal) / 2
        ends = [int(np.argmin(np.abs(np.array(self.levels) - end))) for end in (tail, 1 - tail)]
        if max(abs(self.levels[i] - end) for i, end in zip(ends, (tail, 1 - tail), strict=True)) > 1e-9:
            raise ValueError(f"levels {self.levels} hold no central interval of {nominal:.0%}")
        return ends[0], ends[1]


def reliability(levels: tuple[float, ...], quantiles: Sliced, truth: np.ndarray, mask: np.ndarray) -> Reliability | None:
    """Hold quantiles against the truth, (W, F, S, T), where `mask` is set.

    None where no target counts, or a quantile is not finite (too few windows to calibrate its level).
    """
    count = len(levels)
    at_once = max(1, _VALUES_AT_ONCE // max(1, truth[0].size * count))
    pairs, above, beyond = np.zeros((count + 1) ** 2, np.int64), np.zeros(count), np.zeros(count)
    truth_sum = 0.0
    for first in range(0, len(truth), at_once):
        some = slice(first, first + at_once)
        q, y = np.ascontiguousarray(quantiles[some][mask[some]].T), truth[some][mask[some]]
        if not np.isfinite(q).all():
            return None
        pairs += _places(q, y)
        above += np.maximum(q - y, 0).sum(axis=1, dtype=np.float64)
        beyond += (q - y).sum(axis=1, dtype=np.float64)
        truth_sum += float(y.sum(dtype=np.float64))
    total = int(pairs.sum())
    if not total:
        return None
    pinball = (above - np.array(levels) * beyond) / total  # max(q e, (q - 1) e) = q e + max(-e, 0)
    shares = _shares(pairs.reshape(count + 1, -1), levels) / total
    return Reliability(levels, shares, 2 * pinball, (beyond + truth_sum) / total)


def _places(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """((Q + 1)²,) how many of `y` (n,) have `a` of the quantiles `q` (Q, n) below them and `b` at or below, at a · (Q + 1) + b."""
    below, upto = np.zeros(len(y), np.int16), np.zeros(len(y), np.int16)
    for of_level in q:
        below += of_level < y
        upto += of_level <= y
    return np.bincount(below * (len(q) + 1) + upto, minlength=(len(q) + 1) ** 2)


def _shares(pairs: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Targets in each bin. `pairs[a, b]`: how many have `a` quantiles below them and `b` at or below them."""
    widths, shares = np.diff([0.0, *levels, 1.0]), np.zeros(len(levels) + 1)
    for first, last in zip(*np.nonzero(pairs), strict=True):
        bins = slice(int(first), int(last) + 1)
        shares[bins] += pairs[first, last] * widths[bins] / widths[bins].sum()
    return shares
