"""Trimmed mean: of each weight, the mean over owners without the smallest and the largest, whatever their numbers of windows.

    w[j] <- mean of w_i[j] without the k smallest and the k largest,  k = floor(share · owners)

Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, ICML 2018. Aggregated by Flower. It holds as long
as no more than k owners are poisoned.
"""

from __future__ import annotations

from typing import Any

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import FlowerRule, dataclass, option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of the trimmed mean."""

    share: float = option(0.3, "of the owners, cut off at either end", low=0.0, high=0.49)


class Rule(FlowerRule):
    """Flower's FedTrimmedAvg."""

    title = "Trimmed mean"
    paper = "Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates, ICML 2018"
    strategy = "FedTrimmedAvg"
    linear = False
    robust = True
    least = 3  # of two, no one can tell which is poisoned

    def arguments(self, owners: int) -> dict[str, Any]:
        """The share with which Flower cuts the whole number meant: 0.29 · 100 is 28.999… there."""
        cut = min(int(self.options.share * owners + 1e-9), (owners - 1) // 2)
        return {"beta": (cut + 0.25) / owners}
