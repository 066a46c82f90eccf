"""A sequential test of a bounded mean by betting, valid at every look.

A gambler starts with capital 1 and bets, before each value, that the mean exceeds a threshold; where it does not, the expected
capital never grows, so it reaches 1/alpha with probability alpha at most, however often one looks (Ville's inequality). The stakes
follow the mean and variance seen so far and are chosen before the value is: nothing is assumed of the distribution but its bounds.

Source: I. Waudby-Smith and A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024).
"""

from __future__ import annotations

import numpy as np

_MOST_STAKE = 0.75  # share of the largest stake at which one value could ruin the gambler
_PRIOR_WEIGHT = 1.0
_PRIOR_VARIANCE = 0.05  # of values in [-1, 1], before any was seen; it is soon outweighed


def evidence_above(values: np.ndarray, threshold: float) -> float:
    """Largest log capital of a gambler on "the mean of `values` exceeds `threshold`"; at least 0.

    Above log(1/alpha) the opposite is refuted at level alpha.

    Args:
        values: (n,) in [-1, 1], oldest first.
        threshold: within (-1, 1).

    Raises:
        ValueError: a value or the threshold lies outside.
    """
    if not -1 < threshold < 1 or (np.abs(values) > 1).any() or np.isnan(values).any():
        raise ValueError(f"expected values in [-1, 1] and a threshold between, found {values.min()}..{values.max()}, {threshold}")
    if not len(values):
        return 0.0
    gains = np.log1p(_stakes(values, threshold) * (values - threshold))
    return float(max(0.0, np.cumsum(gains).max()))


def evidence_below(values: np.ndarray, threshold: float) -> float:
    """The same for "the mean lies below `threshold`"."""
    return evidence_above(-values, -threshold)


def _stakes(values: np.ndarray, threshold: float) -> np.ndarray:
    """(n,): what is bet before each value: Kelly's stake for the mean and variance of those before it, never negative."""
    before = np.arange(len(values)) + _PRIOR_WEIGHT
    mean = (np.concatenate(([0.0], np.cumsum(values)[:-1])) + _PRIOR_WEIGHT * threshold) / before
    square = (np.concatenate(([0.0], np.cumsum((values - threshold) ** 2)[:-1])) + _PRIOR_WEIGHT * _PRIOR_VARIANCE) / before
    kelly = (mean - threshold) / square
    return np.asarray(np.clip(kelly, 0.0, _MOST_STAKE / (1 + threshold)))
