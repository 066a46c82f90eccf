"""The Pareto front: candidates that no other one beats in everything.

Source: Pareto dominance as in Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II" (2002).
"""

from __future__ import annotations

import numpy as np


def front(costs: np.ndarray) -> np.ndarray:
    """(candidates,) bool: whether none dominates it.

    `costs`: (candidates, criteria), lower is better; NaN (not known) is worse than any value. One dominates another if it is as
    good in every criterion and better in one; equal candidates are on the front together.
    """
    filled = np.where(np.isnan(costs), np.inf, costs)
    mine, others = filled[:, None, :], filled[None, :, :]
    dominated: np.ndarray = np.all(others <= mine, axis=2) & np.any(others < mine, axis=2)
    return np.asarray(~dominated.any(axis=1))
