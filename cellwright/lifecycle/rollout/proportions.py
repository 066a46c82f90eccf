"""A confidence sequence of a proportion: an interval that holds at every look at once.

The likelihood of the counts under a Beta mixture, divided by that under the true proportion, is a martingale; the proportions for
which it stays below 1/alpha cover the true one at all times with probability 1 - alpha (H. Robbins, Statistical methods related to
the law of the iterated logarithm, 1970; S. Howard et al., Annals of Statistics 49, 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from math import lgamma, log

_PRIOR = 0.5  # Jeffreys' Beta(1/2, 1/2)
_STEPS = 60  # of bisection


def interval(events: int, trials: int, alpha: float) -> tuple[float, float]:
    """Lowest and highest proportion that `events` of `trials` leave possible.

    Raises:
        ValueError: more events than trials, or a negative number of either.
    """
    if not 0 <= events <= trials:
        raise ValueError(f"expected 0 <= events <= trials, found {events} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    mixed = _log_beta(_PRIOR + events, _PRIOR + trials - events) - _log_beta(_PRIOR, _PRIOR)
    limit = mixed - log(1 / alpha)

    def inside(p: float) -> bool:
        return _log_likelihood(events, trials, p) >= limit

    seen = events / trials
    low = 0.0 if inside(0.0) else _edge(inside, 0.0, seen)
    high = 1.0 if inside(1.0) else _edge(inside, 1.0, seen)
    return low, high


def _edge(inside: Callable[[float], bool], outer: float, inner: float) -> float:
    for _ in range(_STEPS):
        middle = (outer + inner) / 2
        outer, inner = (outer, middle) if inside(middle) else (middle, inner)
    return outer


def _log_likelihood(events: int, trials: int, p: float) -> float:
    some = 0.0 if events == 0 else (events * log(p) if p > 0 else -float("inf"))
    rest = trials - events
    return some + (0.0 if rest == 0 else (rest * log(1 - p) if p < 1 else -float("inf")))


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
