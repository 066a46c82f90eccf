"""FedAdam: the coordinator takes Adam's step along the averaged update, as if that were a gradient.

    d = mean update;  m <- b1 m + (1 - b1) d;  v <- b2 v + (1 - b2) d²;  w <- w + lr' m / (sqrt(v) + tau)
    lr' = lr sqrt(1 - b2^(r+1)) / (1 - b1^(r+1)),  r the round, from 1

Reddi et al., Adaptive federated optimization, ICLR 2021. Aggregated by Flower, which corrects the first rounds' bias as Adam does
(the paper does not) with an exponent one higher than the round.
"""

from __future__ import annotations

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._adaptive import Adaptive
from cellwright.federation.aggregation._contract import dataclass, option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of FedAdam."""

    learning_rate: float = option(0.1, "the coordinator's", low=1e-6, high=10.0)
    beta_1: float = option(0.9, "share of the mean update that is kept from round to round", low=0.0, high=0.999)
    beta_2: float = option(0.99, "share of its square that is kept", low=0.0, high=0.9999)
    tau: float = option(1e-2, "added to the root, so that small updates stay small", low=1e-9)


class Rule(Adaptive):
    """Flower's FedAdam."""

    title = "FedAdam"
    strategy = "FedAdam"
