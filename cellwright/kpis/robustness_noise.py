"""Robustness against noise: MAE with noise on the inputs / MAE without - 1. 0: unharmed; 0.1: a tenth more error.

The noise is normal, of `scorecard.noise_share` standard deviations of each site and feature (training rows), on every measured
value of the history and its lags; the truth stays as it was. The measure is the relative performance drop under corruption of
Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019.
"""

from cellwright.kpis._probes import Probes, growth

title = "Noise"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "robustness"
plain = "growth of MAE when every input is blurred by noise"


def compute(evidence: Probes) -> float | None:
    """None where it was not probed."""
    return growth(evidence.noise_mae, evidence.mae)
