"""Stability of rank: Kendall's tau between folds, over the pairs of finalists that this one belongs to. 1: the same order in all.

Every finalist is trained again, at equal budget, on `scorecard.folds` rolling-origin folds before the test span. For each pair of
folds and each other finalist, +1 if the same one of the two has the lower MAE in both folds, -1 if not, 0 if they tie in one; the
mean of all. The mean over all finalists is Kendall's tau-a of their ranks, averaged over the pairs of folds. Kendall, "A new measure
of rank correlation", Biometrika 30 (1938); folds: Tashman, "Out-of-sample tests of forecasting accuracy", Int. J. Forecasting 16 (2000).
"""

from itertools import combinations

import numpy as np

from cellwright.kpis._probes import Probes

title = "Stability of rank"
unit = "1"
lower_is_better = False
span = "probe"
ideal = 1.0
group = "stability"
plain = "1: against every other finalist it wins, or loses, on all folds alike; −1: never the same twice"


def compute(evidence: Probes) -> float | None:
    """None with fewer than two folds, or without another finalist that was trained on them."""
    mine = evidence.fold_maes.get(evidence.key, ())
    signs = [
        np.sign(np.array(mine) - np.array(theirs))
        for key, theirs in evidence.fold_maes.items()
        if key != evidence.key and len(theirs) == len(mine)
    ]
    agreed = [one * other for sign in signs for one, other in combinations(sign, 2)]
    return float(np.mean(agreed)) if agreed else None
