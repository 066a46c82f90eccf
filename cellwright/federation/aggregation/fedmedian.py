"""FedMedian: of each weight, the median over owners, whatever their numbers of windows.

    w[j] <- median over owners of w_i[j]

Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, ICML 2018. Aggregated by Flower. Less than half
of the owners cannot move it outside of what the others sent. Where owners' data differ much, it is further from the mean than
the other rules.
"""

from __future__ import annotations

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import FlowerRule, dataclass


@dataclass(frozen=True)
class Options(_contract.Options):
    """FedMedian has none."""


class Rule(FlowerRule):
    """Flower's FedMedian."""

    title = "FedMedian"
    paper = "Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, ICML 2018"
    strategy = "FedMedian"
    linear = False
    robust = True
    least = 3  # of two, no one can tell which is poisoned
