"""Semi-synchronous: a round ends at its deadline; what comes later counts in the next round, a little less.

    w <- w + sum of s_i · update_i,  s_i in proportion to n_i (1 + staleness_i)^-a, adding up to 1

Wu et al., SAFA: a semi-asynchronous protocol for fast federated learning with low overhead, IEEE Transactions on Computers 70(5), 2021,
without its cache of old models: a late update is added to the newest weights, discounted as in FedAsync (Xie et al., 2019).
M.3387 9.3 names this mechanism beside the synchronous and the asynchronous one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import by_examples, dataclass, option
from cellwright.federation.aggregation._sums import discount, moved
from cellwright.federation.contract import Arrays, Update


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of semi-synchronous rounds."""

    deadline_s: float = option(0.0, "how long a round waits, seconds; 0: federation.deadline_s", low=0.0)
    staleness_exponent: float = option(0.5, "a: how fast an update loses weight with every round that went by", low=0.0)


class Rule(_contract.Rule):
    """Late updates count in the round they come in."""

    title = "Semi-synchronous FedAvg"
    paper = (
        "Wu et al., SAFA: a semi-asynchronous protocol for fast federated learning, IEEE Transactions on Computers 70(5), 2021"
    )
    timing = "semi_synchronous"

    def deadline_s(self, configured: float) -> float:
        return self.options.deadline_s or configured

    def weights(self, updates: Sequence[Update]) -> np.ndarray:
        left = by_examples(updates) * discount(updates, self.options.staleness_exponent)
        return np.asarray(left / left.sum())

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        return moved(current, self.checked(updates), self.weights(updates))
