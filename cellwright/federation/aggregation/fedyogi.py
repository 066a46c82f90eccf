"""FedYogi: FedAdam whose second moment grows and shrinks by steps no larger than the update's square.

    d = mean update;  m <- b1 m + (1 - b1) d;  v <- v - (1 - b2) d² sign(v - d²);  w <- w + lr m / (sqrt(v) + tau)

Reddi et al., Adaptive federated optimization, ICLR 2021. Aggregated by Flower, without correction of the first rounds' bias.
"""

from __future__ import annotations

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._adaptive import Adaptive
from cellwright.federation.aggregation._contract import dataclass, option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of FedYogi."""

    learning_rate: float = option(0.03, "the coordinator's", low=1e-6, high=10.0)
    beta_1: float = option(0.9, "share of the mean update that is kept from round to round", low=0.0, high=0.999)
    beta_2: float = option(0.99, "how little the second moment moves in a round", low=0.0, high=0.9999)
    tau: float = option(1e-3, "added to the root, so that small updates stay small", low=1e-9)


class Rule(Adaptive):
    """Flower's FedYogi."""

    title = "FedYogi"
    strategy = "FedYogi"
