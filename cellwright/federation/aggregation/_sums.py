"""Weighted sums of updates, shared by the rules of this project's own. Made in float64, in the order of the updates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays, Update


def moved(start: Arrays, updates: Sequence[Update], shares: np.ndarray) -> Arrays:
    """`start` plus the weighted sum of the updates; arrays that no update changes stay as they are.

    Raises:
        FederationError: an update changes arrays that `start` does not have, or other ones than the first update does.
    """
    names = tuple(updates[0].delta)
    for update in updates:
        check(update, names, start)
    changed = {name: start[name] + weighted([u.delta[name] for u in updates], shares) for name in names}
    return {name: np.asarray(changed.get(name, array)).astype(array.dtype) for name, array in start.items()}


def weighted(arrays: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Sum of share × array, float64."""
    total = np.zeros(arrays[0].shape)
    for array, share in zip(arrays, shares, strict=True):
        total += share * array.astype(np.float64)
    return total


def check(update: Update, names: Iterable[str], start: Arrays) -> None:
    """An update must hold the arrays `names`, in the shapes that `start` has.

    Raises:
        FederationError: it holds others.
    """
    wrong = sorted(set(names) ^ set(update.delta)) or [
        n for n, a in update.delta.items() if n not in start or a.shape != start[n].shape
    ]
    if wrong:
        raise FederationError(
            f"the update of '{update.owner}' and the model differ in '{wrong[0]}'; all owners must train the model that was deployed"
        )


def flat(update: Update) -> np.ndarray:
    """An update as one vector, (parameters,) float64."""
    return np.concatenate([array.astype(np.float64).ravel() for array in update.delta.values()])


def discount(updates: Sequence[Update], exponent: float) -> np.ndarray:
    """What is left of each update for its staleness: (1 + staleness) ** -exponent, (updates,) float64."""
    stale = np.array([u.staleness for u in updates], np.float64)
    return np.asarray((1 + stale) ** -exponent)
