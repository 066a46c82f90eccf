"""Split conformal prediction: predictive quantiles and intervals for every candidate, from its own errors on held-out windows.

Whatever a candidate says becomes quantiles at the same seven levels, so that all compare:

    quantile(level) = base(level) + offset(level, step, target) · scale(site, target, forecast)

base     the forecast of a point model; of a quantile head, its own quantiles, linear between its levels, its outermost ones beyond
scale    the site's usual change from one step to the next, times √(max(forecast, 0) / usual load + 0.05): errors grow with a
         site's restlessness and, as those of counts do, with the root of its load. Both are from the training rows alone, so that
         it owes nothing to the errors that are calibrated. Where a site's mean load is not above 0 the root is left out.
offset   the quantile of (truth - base) / scale over the calibration windows, all sites together: of n errors the ⌊level (n + 1)⌋-th
         smallest below the median, the ⌈level (n + 1)⌉-th above; each tail holds by itself. There is none (the interval is
         unbounded) where n is too small for the level.

For a point model that is split conformal prediction with normalised errors, for a quantile head conformalised quantile
regression with its two tails apart. Quantiles are put in order, and held within the physical bounds of the feature. The median
of the quantiles may lie beside the point forecast, which stays as the model said it.

The guarantee is that of exchangeable errors; telemetry drifts, so what really holds is measured on the test span. The weights were
chosen by the loss on the calibration span, which makes its errors a little smaller than those to come.

Sources: Vovk, Gammerman and Shafer, "Algorithmic learning in a random world" (2005); Lei et al., "Distribution-free predictive
inference for regression", JASA 113 (2018); Romano, Patterson and Candès, "Conformalized quantile regression", NeurIPS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellwright.results import Intervals

LEVELS = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
COVERAGES = {0.5: (2, 4), 0.8: (1, 5), 0.95: (0, 6)}  # central intervals: their nominal coverage, and which levels bound them
_REST = 0.05  # share of the usual load that is added under the root: a site at rest still errs


@dataclass(frozen=True)
class Usual:
    """What the training rows say of each site: (sites, targets) each."""

    step: np.ndarray  # mean |change| from one step to the next; above 0
    load: np.ndarray  # mean value


@dataclass(frozen=True)
class Conformal:
    """A calibrated candidate. Legend: W windows, F horizon, S sites, T targets, H levels of its head, Q levels of LEVELS."""

    heads: tuple[float, ...]  # levels of the network's own quantiles; empty for a point model
    offsets: np.ndarray  # (Q, F, T); -inf or inf where there is none
    usual: Usual
    low: np.ndarray  # (T,) physical bounds, -inf or inf where there is none
    high: np.ndarray  # (T,)
    windows: int  # it was calibrated on

    def quantiles(self, answer: np.ndarray, sites: Sequence[int] | None = None) -> np.ndarray:
        """(W, F, S, T, Q) of a network's `answer` (W, F, S, T, H or 1), raw units. `sites`: which ones S are; None: all."""
        usual = self.usual if sites is None else Usual(self.usual.step[list(sites)], self.usual.load[list(sites)])
        scale = spread(answer[..., _median(self.heads)], usual)
        base = answer @ _mixing(self.heads) if self.heads else answer
        found = base + scale[..., None] * self.offsets.transpose(1, 2, 0)[:, None]
        if self.heads:
            found.sort(axis=-1)
        return np.asarray(np.clip(found, self.low[:, None], self.high[:, None]), dtype=np.float32)

    @property
    def coverages(self) -> tuple[float, ...]:
        """Nominal coverages of the central intervals that are bounded at every step and target."""
        bounded = np.isfinite(self.offsets).all(axis=(1, 2))
        return tuple(nominal for nominal, ends in COVERAGES.items() if bounded[list(ends)].all())

    def stored(self) -> Intervals:
        """As it is kept with a score and in a bundle."""
        return Intervals(
            levels=LEVELS,
            heads=self.heads,
            offsets=[[[_finite(v) for v in targets] for targets in steps] for steps in self.offsets.tolist()],
            usual_step=_short(self.usual.step),
            usual_load=_short(self.usual.load),
            low=[_finite(v) for v in self.low.tolist()],
            high=[_finite(v) for v in self.high.tolist()],
            windows=self.windows,
        )


def restored(kept: Intervals) -> Conformal:
    """What was stored, to compute with.

    Raises:
        ValueError: it is of other levels.
    """
    if kept.levels != LEVELS:
        raise ValueError(f"expected quantiles at the levels {LEVELS}, found {kept.levels}")
    below = np.array([-np.inf if level < 0.5 else np.inf for level in kept.levels], dtype=np.float32)[:, None, None]
    offsets = np.array(kept.offsets, dtype=np.float32)  # None becomes NaN
    usual = Usual(np.array(kept.usual_step, dtype=np.float32), np.array(kept.usual_load, dtype=np.float32))
    low, high = bounds(kept.low, kept.high)
    return Conformal(tuple(kept.heads), np.where(np.isnan(offsets), below, offsets), usual, low, high, kept.windows)


def bounds(low: Sequence[float | None], high: Sequence[float | None]) -> tuple[np.ndarray, np.ndarray]:
    """Physical bounds of the targets as two arrays; infinite where there is none."""
    return (
        np.array([-np.inf if v is None else v for v in low], dtype=np.float32),
        np.array([np.inf if v is None else v for v in high], dtype=np.float32),
    )


def calibrate(
    heads: tuple[float, ...],
    answer: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    usual: Usual,
    limits: tuple[np.ndarray, np.ndarray],
) -> Conformal:
    """From a candidate's errors on windows that it did not learn from.

    `answer`: (W, F, S, T, H or 1); `truth` and `mask`: (W, F, S, T), raw units, whether really measured; `limits`: `bounds`.
    """
    mixing = _mixing(heads)
    windows, horizon, _, targets, _ = answer.shape
    offsets = np.empty((len(LEVELS), horizon, targets), dtype=np.float32)
    for step in range(horizon):
        for target in range(targets):
            said, good = answer[:, step, :, target], mask[:, step, :, target]
            site = Usual(usual.step[:, target], usual.load[:, target])
            scale = spread(said[..., _median(heads)], site)[good]
            said, true = said[good], truth[:, step, :, target][good]
            errors = (true - said[:, 0]) / scale  # a point model's are the same at every level
            for number, level in enumerate(LEVELS):
                of_level = (true - said @ mixing[:, number]) / scale if heads else errors
                offsets[number, step, target] = conformal_quantile(of_level, level)
    return Conformal(heads, offsets, usual, *limits, windows)


def conformal_quantile(errors: np.ndarray, level: float) -> float:
    """The quantile of `errors` (n,) that holds for one more error; infinite where n is too small for the level."""
    count = len(errors)
    wanted = level * (count + 1)
    place = math.floor(wanted + 1e-9) if level < 0.5 else math.ceil(wanted - 1e-9)
    if not 1 <= place <= count:
        return -math.inf if level < 0.5 else math.inf
    return float(np.partition(errors, place - 1)[place - 1])


def spread(forecast: np.ndarray, usual: Usual) -> np.ndarray:
    """The scale of a forecast's error, of the same shape; `usual` broadcasts against it."""
    loaded = usual.load > 0
    share = np.maximum(forecast, 0) / np.where(loaded, usual.load, 1)
    return np.asarray(usual.step * np.where(loaded, np.sqrt(share + _REST), 1), dtype=np.float32)


@dataclass(frozen=True)
class Predicted:
    """Quantiles of a span's windows, computed when a slice of them is asked for: all at once would be seven times the forecasts."""

    answer: np.ndarray  # (W, F, S, T, H or 1)
    parts: tuple[tuple[int, Conformal], ...]  # (first window that is not of it, what it is calibrated by), in order

    def __len__(self) -> int:
        return len(self.answer)

    def __getitem__(self, some: slice) -> np.ndarray:
        """(windows of the slice, F, S, T, Q); a slice without a step."""
        start, stop, _ = some.indices(len(self))
        found, before = [], 0
        for end, conformal in self.parts:
            piece = self.answer[max(start, before) : min(stop, end)]
            found += [conformal.quantiles(piece)] if len(piece) else []
            before = end
        return np.concatenate(found) if found else np.empty((0, *self.answer.shape[1:-1], len(LEVELS)), np.float32)


def cross_fitted(
    heads: tuple[float, ...],
    answer: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    origins: np.ndarray,
    usual: Usual,
    limits: tuple[np.ndarray, np.ndarray],
) -> Predicted:
    """Quantiles of the very span that is calibrated on: each half in time by the errors of the other.

    Windows whose targets overlap with the half that they would calibrate are left out, so no target says anything of itself.
    """
    middle, horizon = len(origins) // 2, answer.shape[1]
    later = origins >= origins[max(0, middle - 1)] + horizon
    earlier = origins + horizon <= origins[middle]

    def by(some: np.ndarray) -> Conformal:
        return calibrate(heads, answer[some], truth[some], mask[some], usual, limits)

    return Predicted(answer, ((middle, by(later)), (len(origins), by(earlier))))


def _median(heads: tuple[float, ...]) -> int:
    """Where the point forecast stands in a network's answer."""
    return int(np.argmin(np.abs(np.array(heads) - 0.5))) if heads else 0


def _mixing(heads: tuple[float, ...]) -> np.ndarray:
    """(H, Q): each level as a mixture of the head's two nearest ones."""
    return np.stack([np.interp(LEVELS, heads or (0.5,), unit) for unit in np.eye(max(1, len(heads)))]).astype(np.float32)


def _finite(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _short(table: np.ndarray) -> list[list[float]]:
    """Seven digits, as many as the numbers have."""
    return [[float(f"{value:.7g}") for value in row] for row in table.tolist()]
