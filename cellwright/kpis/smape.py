"""Symmetric mean absolute percentage error: mean of 200 · |forecast - truth| / (|forecast| + |truth|), 0 where both are 0.

Source: Makridakis, "Accuracy measures: theoretical and practical concerns", Int. J. Forecasting 9 (1993); 0 to 200 %.
"""

import numpy as np

from cellwright.kpis._contract import Forecasts

title = "sMAPE"
unit = "%"
lower_is_better = True
span = "forecast"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None where no target counts."""
    if not evidence.error.size:
        return None
    size = np.abs(evidence.forecast[evidence.mask].astype(np.float64)) + np.abs(evidence.truth[evidence.mask])
    share = np.divide(np.abs(evidence.error), size, out=np.zeros_like(size), where=size > 0)
    return float(200 * share.mean())
