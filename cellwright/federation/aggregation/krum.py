"""Krum: the weights of the owner that is nearest to its neighbours; Multi-Krum: the mean of several such.

    score_i = sum of the squared distances to the n - f - 2 nearest others;  w <- w_i of the lowest score

Blanchard et al., Machine learning with adversaries: Byzantine tolerant gradient descent, NeurIPS 2017. Aggregated by Flower, over the
whole network as one vector. f is at most what the paper allows, 2 f + 2 < n: with fewer updates it is lowered. Where owners' data
differ much, one owner's weights are a poor model of all; Multi-Krum (`select: 0`) is nearer to the mean, which it takes by windows.
"""

from __future__ import annotations

from typing import Any

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import FlowerRule, dataclass, option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of Krum."""

    share: float = option(0.3, "of the owners that may be poisoned", low=0.0, high=0.49)
    select: int = option(1, "lowest scores that are averaged; 0: all but as many as may be poisoned (Multi-Krum)", low=0)


class Rule(FlowerRule):
    """Flower's MultiKrum, of which Krum is the case of one."""

    title = "Krum"
    paper = "Blanchard et al., Machine learning with adversaries: Byzantine tolerant gradient descent, NeurIPS 2017"
    strategy = "MultiKrum"
    linear = False
    robust = True
    least = 3

    def arguments(self, owners: int) -> dict[str, Any]:
        poisoned = min(int(self.options.share * owners + 1e-9), (owners - 3) // 2)
        return {"num_malicious_nodes": poisoned, "num_nodes_to_select": self.options.select or owners - poisoned}
