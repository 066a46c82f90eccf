"""F1 of busy hours: the harmonic mean of precision and recall, 2 hits / (2 hits + false alarms + misses).

A window is busy where the site's load goes above the 90th percentile of its training rows within the horizon, and said to be busy where
the point forecast does; masked steps count in neither.

Source: van Rijsbergen, "Information retrieval" (1979).
"""

from cellwright.kpis._contract import Forecasts

title = "F1 of busy hours"
unit = "1"
lower_is_better = False
span = "forecast"
ideal = 1.0


def compute(evidence: Forecasts) -> float | None:
    """None without a threshold, or where no window was busy or said to be."""
    return None if evidence.busy is None else evidence.busy.f1
