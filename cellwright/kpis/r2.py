"""Coefficient of determination: 1 - Σ (forecast - truth)² / Σ (truth - mean truth)², the mean that of all targets of the span.

One mean over all sites and steps. Targets, whose units may differ, are computed apart and averaged.
"""

import numpy as np

from cellwright.kpis._contract import Forecasts

title = "R²"
unit = "1"
lower_is_better = False
span = "forecast"
ideal = 1.0


def compute(evidence: Forecasts) -> float | None:
    """None where no target counts, or none varies."""
    values = [value for target in evidence.targets if (value := _of_one(target)) is not None]
    return float(np.mean(values)) if values else None


def _of_one(target: Forecasts) -> float | None:
    truth = target.truth[target.mask].astype(np.float64)
    total = float(np.square(truth - truth.mean()).sum()) if truth.size else 0.0
    return 1 - float(np.square(target.error).sum()) / total if total > 0 else None
