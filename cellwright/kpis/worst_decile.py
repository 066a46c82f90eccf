"""Fairness: how much larger the error of the worst tenth of the sites is than that of the site in the middle.

    mean of the largest tenth of the sites' errors (one site at least) / median of the sites' errors - 1

A site's error is its MAE in shares of its mean load over the span, so that busy sites are not called unfair for being busy. 0:
nobody is worse off; 1: the worst tenth errs twice as much as the middle.

Source: the ratio of a quantile to the median is a common measure of inequality; see Cowell, "Measuring inequality" (2011).
"""

import numpy as np

from cellwright.kpis._contract import Forecasts
from cellwright.kpis._sites import relative_errors

title = "Worst decile of sites"
unit = "1"
lower_is_better = True
span = "forecast"
group = "fairness"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None where no site counts, or the site in the middle has no error while others have."""
    errors = np.sort(relative_errors(evidence))
    if not len(errors):
        return None
    worst, middle = float(errors[-max(1, len(errors) // 10) :].mean()), float(np.median(errors))
    if middle == 0:
        return 0.0 if worst == 0 else None
    return worst / middle - 1
