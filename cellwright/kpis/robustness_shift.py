"""Robustness against a shift of level: growth of MAE relative to growth of load, (MAE shifted / MAE) / (1 + load_shift) - 1.

The load of every site, its history and its truth, rises by `scorecard.load_shift`. 0: the error grew as the load did, as that of
any forecast that scales with its input; above 0: the network does not follow the new level. The covariate shift of Shimodaira,
"Improving predictive inference under covariate shift", J. Statistical Planning and Inference 90 (2000), in its simplest form.
"""

from cellwright.kpis._probes import Probes, growth

title = "Shift of level"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "robustness"
plain = "growth of MAE beyond that of the load, when all load rises"


def compute(evidence: Probes) -> float | None:
    """None where it was not probed."""
    if evidence.load_shift is None or evidence.mae is None:
        return None
    return growth(evidence.shift_mae, evidence.mae * (1 + evidence.load_shift))
