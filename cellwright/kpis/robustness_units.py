"""Robustness against a change of unit: MAE with the targets' inputs multiplied by `scorecard.unit_factor` / MAE without - 1.

The source begins to send kbit/s for Mbit/s, and nobody says so: the targets, their lags and their neighbours' means are that many
times greater, while the truth is held in the old unit. A network whose inputs are clipped is thrown off less. Whether the house
would notice before a forecast is made is told by `units_noticed`.
"""

from cellwright.kpis._probes import Probes, growth

title = "Change of unit"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "robustness"
plain = "growth of MAE when the targets arrive in another unit and nobody says so"


def compute(evidence: Probes) -> float | None:
    """None where it was not probed."""
    return growth(evidence.units_mae, evidence.mae)
