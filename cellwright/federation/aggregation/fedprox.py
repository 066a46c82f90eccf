"""FedProx: FedAvg whose owners pay for walking away from the global weights.

    an owner minimises  loss(w) + mu / 2 |w - w_global|²;  the coordinator averages as FedAvg does

Li et al., Federated optimization in heterogeneous networks, MLSys 2020. Aggregated by Flower; the proximal term is the owner's part
(`Local.proximal`). The paper also lets slow owners do fewer steps; here that holds for every rule.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import FlowerRule, dataclass, option
from cellwright.federation.contract import Local


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of FedProx."""

    mu: float = option(0.01, "weight of half the squared distance to the global weights", low=0.0)


class Rule(FlowerRule):
    """Flower's FedProx."""

    title = "FedProx"
    paper = "Li et al., Federated optimization in heterogeneous networks, MLSys 2020"
    strategy = "FedProx"

    def local(self, local: Local, round_: int) -> Local:
        return replace(local, proximal=self.options.mu)

    def arguments(self, owners: int) -> dict[str, Any]:
        return {"proximal_mu": self.options.mu}
