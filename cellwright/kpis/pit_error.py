"""How far the PIT histogram is from a flat one: the total variation distance, half the sum of |observed - nominal share|.

The bins of the histogram (probability integral transform) are the stretches between two neighbouring calibrated levels, the ends
included. 0: the truth falls between the quantiles as often as they say; 0.1: a tenth of it falls into other bins.

Source: Gneiting, Balabdaoui and Raftery, "Probabilistic forecasts, calibration and sharpness", JRSS B 69 (2007).
"""

import numpy as np

from cellwright.kpis._contract import Forecasts

title = "PIT error"
unit = "1"
lower_is_better = True
span = "forecast"
group = "calibration"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None without quantiles, or where no target counts."""
    found = evidence.reliability
    return None if found is None else float(np.abs(found.shares - found.widths).sum() / 2)
