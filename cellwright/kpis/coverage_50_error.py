"""How far the observed coverage of the 50 % interval is from 50 %: |coverage - 0.50|.

The interval is the central one of the calibrated quantiles. A truth that equals several quantiles at once is shared out among the
bins that it lies between (see `_reliability`). The observed coverage itself stands in the score's calibration and in the report.

Source: Gneiting, Balabdaoui and Raftery, "Probabilistic forecasts, calibration and sharpness", JRSS B 69 (2007).
"""

from cellwright.kpis._contract import Forecasts

title = "Coverage error at 50 %"
unit = "1"
lower_is_better = True
span = "forecast"
group = "calibration"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None without quantiles, or where no target counts."""
    return None if evidence.reliability is None else abs(evidence.reliability.coverage(0.5) - 0.5)
