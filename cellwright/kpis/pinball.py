"""Pinball loss, twice its mean over the calibrated levels: what a quantile head is trained by, in the unit of the target.

    2 · mean over levels of max(q · e, (q - 1) · e),   e = truth - quantile

All levels weigh alike, so the tails count for more than in CRPS.

Source: Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978).
"""

from cellwright.kpis._contract import Forecasts

title = "Pinball loss"
unit = "target"
lower_is_better = True
span = "forecast"
ideal = 0.0


def compute(evidence: Forecasts) -> float | None:
    """None without quantiles, or where no target counts."""
    return None if evidence.reliability is None else float(evidence.reliability.pinball.mean())
