"""Robustness against missing values: MAE with gaps in the history / MAE without - 1. 0: unharmed.

Each measured value of the history and its lags is missing with probability `scorecard.missing_share`, each by itself; nothing
fills it. After the missing-at-random corruption of Rubin, "Inference and missing data", Biometrika 63 (1976).
"""

from cellwright.kpis._probes import Probes, growth

title = "Missing values"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "robustness"
plain = "growth of MAE when values of the history are missing at random"


def compute(evidence: Probes) -> float | None:
    """None where it was not probed."""
    return growth(evidence.missing_mae, evidence.mae)
