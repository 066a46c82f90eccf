"""Recall of busy hours: of the windows that were busy, the share that was said to be.

A window is busy where the site's load goes above the 90th percentile of its training rows within the horizon, and said to be busy where
the point forecast does; masked steps count in neither.

Source: van Rijsbergen, "Information retrieval" (1979).
"""

from cellwright.kpis._contract import Forecasts

title = "Recall of busy hours"
unit = "1"
lower_is_better = False
span = "forecast"
ideal = 1.0


def compute(evidence: Forecasts) -> float | None:
    """None without a threshold, or where no window was busy."""
    return None if evidence.busy is None else evidence.busy.recall
