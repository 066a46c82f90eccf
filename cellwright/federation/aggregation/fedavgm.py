"""FedAvgM: the coordinator adds momentum to the average of the updates.

With d the average of the updates by windows, the momentum is m <- beta·m + d, and the weights move by rate·m. With beta 0 and rate 1 it is
FedAvg. The momentum damps what owners of different data pull to and fro, and carries the rounds through where they agree.

Source: Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution for federated visual classification", 2019,
arXiv 1909.06335. Here the rate is half of the paper's 1, which with beta 0.9 is five times the average in the long run.
"""

from __future__ import annotations

from typing import Any

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import FlowerRule, dataclass, option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of FedAvgM."""

    server_rate: float = option(0.5, "step along the momentum", low=1e-6)
    momentum: float = option(0.9, "share of the momentum that stays from round to round", low=0.0, high=0.999)


class Rule(FlowerRule):
    """Flower's FedAvgM."""

    title = "FedAvgM"
    paper = "Hsu, Qi and Brown, arXiv 1909.06335, 2019"
    adaptive = True
    strategy = "FedAvgM"
    keeps = ("momentum_vector",)

    def arguments(self, owners: int) -> dict[str, Any]:
        """Flower's names of the two options."""
        return {"server_learning_rate": self.options.server_rate, "server_momentum": self.options.momentum}
