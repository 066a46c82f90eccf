"""Mean absolute error: mean |forecast - truth| over windows, steps, sites and targets."""

import numpy as np

from cellwright.kpis._contract import Forecasts

title = "MAE"
unit = "target"
lower_is_better = True
span = "forecast"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None where no target counts."""
    return float(np.abs(evidence.error).mean()) if evidence.error.size else None
