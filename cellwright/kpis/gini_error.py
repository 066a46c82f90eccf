"""Fairness: Gini coefficient of the sites' errors, 0 where all sites err alike, towards 1 where all the error is one site's.

    G = sum over i of (2 i - n - 1) · x(i) / (n · sum of x),   x(1) ≤ … ≤ x(n) the sites' errors

A site's error is its MAE in shares of its mean load over the span, so that busy sites are not called unfair for being busy.

Source: Gini, "Variabilità e mutabilità" (1912), in the form of Sen, "On economic inequality" (1973).
"""

import numpy as np

from cellwright.kpis._contract import Forecasts
from cellwright.kpis._sites import relative_errors

title = "Gini of site errors"
unit = "1"
lower_is_better = True
span = "forecast"
group = "fairness"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None where no site counts."""
    errors = np.sort(relative_errors(evidence))
    if not len(errors):
        return None
    rank, total = np.arange(1, len(errors) + 1), float(errors.sum())
    return float(((2 * rank - len(errors) - 1) * errors).sum() / (len(errors) * total)) if total > 0 else 0.0
