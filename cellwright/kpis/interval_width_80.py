"""Sharpness: mean width of the central 80 % interval of the calibrated quantiles, in the unit of the target.

Of two models whose coverage is right the one with narrower intervals knows more.

Source: Gneiting, Balabdaoui and Raftery, "Probabilistic forecasts, calibration and sharpness", JRSS B 69 (2007).
"""

from cellwright.kpis._contract import Forecasts

title = "Width of the 80 % interval"
unit = "target"
lower_is_better = True
span = "forecast"
group = "calibration"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None without quantiles, or where no target counts."""
    return None if evidence.reliability is None else evidence.reliability.width(0.8)
