"""Root mean squared error: sqrt(mean (forecast - truth)²) over windows, steps, sites and targets."""

import numpy as np

from cellwright.kpis._contract import Forecasts

title = "RMSE"
unit = "target"
lower_is_better = True
span = "forecast"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None where no target counts."""
    return float(np.sqrt(np.square(evidence.error).mean())) if evidence.error.size else None
