"""Spread over seeds: standard deviation / mean of the validation MAE of trainings that differ in their seed alone. 0: none.

`scorecard.seeds` trainings of equal budget, n - 1 in the denominator of the variance. A lead over another candidate that is smaller
than this may be a lucky seed: Bouthillier et al., "Accounting for variance in machine learning benchmarks", MLSys 2021.
"""

import numpy as np

from cellwright.kpis._probes import Probes

title = "Spread over seeds"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "stability"
plain = "how much the validation MAE differs between trainings that differ in their seed alone, relative"


def compute(evidence: Probes) -> float | None:
    """None with fewer than two seeds."""
    maes = np.array(evidence.seed_maes)
    return float(maes.std(ddof=1) / maes.mean()) if len(maes) > 1 and maes.mean() > 0 else None
