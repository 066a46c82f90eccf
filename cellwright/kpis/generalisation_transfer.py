"""Generalisation to another data set: MAE on `scorecard.transfer_to` / MAE of the last value repeated there, on the same windows.

The weights are those that were trained here; the scaler of each site is fitted on that data set's own training rows. The data set
must have the same cadence. Below 1: it is of use where it was never trained. The ratio is the relative MAE against the naive
forecast, Hyndman and Koehler, "Another look at measures of forecast accuracy", Int. J. Forecasting 22 (2006).
"""

from cellwright.kpis._probes import Probes

title = "Another data set"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "generalisation"
plain = "MAE on another data set, untrained there, over that of repeating the last value; below 1 it is of use"


def compute(evidence: Probes) -> float | None:
    """None where no data set was named, or it cannot be forecast."""
    if evidence.transfer_mae is None or not evidence.transfer_naive_mae:
        return None
    return evidence.transfer_mae / evidence.transfer_naive_mae
