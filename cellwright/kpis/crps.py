"""Continuous ranked probability score: the area between the predictive distribution and the step at the truth.

    CRPS = ∫ 2 pinball(level) d level ≈ sum of w(level) · 2 pinball(level),   over the seven calibrated levels

with w(level) the width of the stretch of levels that is nearer to it than to another one; the weights add up to 1. In the unit of
the target, and of a single value repeated at every level exactly its MAE. With seven levels the tails beyond 0.025 and 0.975 count as
these do: the approximation favours nobody, as every candidate has the same levels.

Source: Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 102 (2007).
"""

import numpy as np

from cellwright.kpis._contract import Forecasts

title = "CRPS"
unit = "target"
lower_is_better = True
span = "forecast"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None without quantiles, or where no target counts."""
    if evidence.reliability is None:
        return None
    return float(weights(evidence.levels) @ evidence.reliability.pinball)


def weights(levels: tuple[float, ...]) -> np.ndarray:
    """(levels,) share of the levels from 0 to 1 that is nearest to each."""
    between = (np.array(levels[1:]) + np.array(levels[:-1])) / 2
    return np.diff([0.0, *between, 1.0])
