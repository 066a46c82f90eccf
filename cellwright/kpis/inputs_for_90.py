"""How few inputs explain a forecast: share of its inputs that carries 90 % of its absolute attribution. Lower is simpler.

An input is one value that the network sees: node × feature × step. Attributions are integrated gradients (Sundararajan, Taly and Yan,
"Axiomatic attribution for deep networks", ICML 2017) from every site's usual value, 0 after scaling, to the input. Those of each window
are brought to a sum of 1 and put in order of size, then averaged over windows: the share is the least n / inputs whose sum reaches 0.9.
"""

import numpy as np

from cellwright.kpis._probes import Probes

title = "Inputs for 90 %"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "interpretability"
plain = "share of its inputs on which 90 % of a forecast rests"

_SHARE = 0.9
_ROUNDING = 1e-9  # shares that were added up


def compute(evidence: Probes) -> float | None:
    """None where nothing was attributed."""
    if not evidence.attribution:
        return None
    reached = np.cumsum(evidence.attribution) >= _SHARE - _ROUNDING
    return (int(np.argmax(reached)) + 1) / len(reached)
