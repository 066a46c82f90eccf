"""FedAvg: the mean of the owners' weights, each by its number of training windows.

    w <- sum over owners of (n_i / n) w_i

McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS 2017. Aggregated by Flower.
One poisoned owner of many windows moves the mean as far as it likes; see fedmedian, trimmed_mean and krum.
"""

from __future__ import annotations

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import FlowerRule, dataclass


@dataclass(frozen=True)
class Options(_contract.Options):
    """FedAvg has none."""


class Rule(FlowerRule):
    """Flower's FedAvg."""

    title = "FedAvg"
    paper = "McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS 2017"
    strategy = "FedAvg"
