"""Precision, recall and AUC of a federation (M.3387 9.5), from counts that add up over owners: no score leaves its owner.

An event is a target above the site's threshold; its score is how far the forecast lies above it, in units of the site's scale. Each
owner counts events and others by bin of that score; the bins are equal everywhere, and one edge lies at 0, where the forecast itself
says "event".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 256  # of equal width; the outermost take what lies beyond
_REACH = 4.0  # scores within ± this have bins of their own


@dataclass(frozen=True)
class Classified:
    """How well events are told; None: nothing was there to be told."""

    precision: float | None
    recall: float | None
    auc: float | None  # chance that an event has a higher score than another interval; ties within a bin count half


def histograms(
    forecast: np.ndarray, truth: np.ndarray, threshold: np.ndarray, scale: np.ndarray
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Counts of events and of others by score. All of one shape, raw units; NaN in `truth` does not count."""
    measured = ~np.isnan(truth)
    score = ((forecast - threshold) / np.maximum(scale, 1e-12))[measured]
    bins = np.clip(np.floor((score + _REACH) * (BINS / (2 * _REACH))), 0, BINS - 1).astype(np.int64)
    event = (truth > threshold)[measured]
    return tuple(np.bincount(bins[event], minlength=BINS).tolist()), tuple(np.bincount(bins[~event], minlength=BINS).tolist())


def classified(positive: Sequence[int], negative: Sequence[int]) -> Classified:
    """What the counts of all owners together say."""
    events, others = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    half = BINS // 2
    told, right = events[half:].sum() + others[half:].sum(), events[half:].sum()
    below = np.concatenate(([0.0], others.cumsum()[:-1])) if others.size else others
    pairs = events.sum() * others.sum()
    return Classified(
        precision=float(right / told) if told else None,
        recall=float(right / events.sum()) if events.sum() else None,
        auc=float((events * (below + others / 2)).sum() / pairs) if pairs else None,
    )


def added(counts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Counts of several owners together; owners without any are left out."""
    given = [np.asarray(c, np.int64) for c in counts if len(c)]
    return tuple(np.sum(given, axis=0).tolist()) if given else ()
