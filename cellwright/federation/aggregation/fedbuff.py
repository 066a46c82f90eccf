"""FedBuff: asynchronous; as soon as a few updates have come they are taken, whatever weights they started from.

    w <- w + lr · sum over the buffer of (n_i / n) (1 + staleness_i)^-a · update_i

Nguyen et al., Federated learning with buffered asynchronous aggregation, AISTATS 2022. No one waits for a slow owner; what it sends
counts less the more rounds went by since it began. Updates count by their windows, as in FedAvg (in the paper, alike). As in the
paper the shares are not made to add up to 1 again: a buffer of stale updates is a smaller step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import by_examples, dataclass, option
from cellwright.federation.aggregation._sums import discount, moved
from cellwright.federation.contract import Arrays, Update

_PAPERS_BUFFER = 10


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of FedBuff."""

    buffer: int = option(0, "updates that fill the buffer; 0: a third of the owners, at most the paper's 10", low=0)
    server_rate: float = option(1.0, "share of the buffer's sum that is taken", low=1e-3, high=10.0)
    staleness_exponent: float = option(0.5, "a: how fast an update loses weight with every round that went by", low=0.0)


class Rule(_contract.Rule):
    """Buffered, discounted by staleness."""

    title = "FedBuff"
    paper = "Nguyen et al., Federated learning with buffered asynchronous aggregation, AISTATS 2022"
    timing = "asynchronous"

    def wanted(self, asked: int) -> int:
        """The size of the buffer; never more than there are owners."""
        return min(int(self.options.buffer) or min(-(-asked // 3), _PAPERS_BUFFER), asked)

    def weights(self, updates: Sequence[Update]) -> np.ndarray:
        return by_examples(updates) * discount(updates, self.options.staleness_exponent)

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        return moved(current, self.checked(updates), self.options.server_rate * self.weights(updates))
