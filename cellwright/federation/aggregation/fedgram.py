"""FedGram: ridge regression from the owners' sums, solved once by the coordinator: exactly what all rows together would give.

    G = sum of X_i'X_i, b = sum of X_i'y_i (with the means, and what of it targets with gaps lack);  w = (G + penalty)⁻¹ b

Karr et al., Secure regression on distributed databases, Journal of Computational and Graphical Statistics 14(2), 2005. One round. The sums
are float64, and P² + P·C numbers for P features and C outputs, and C·P² more for gaps, however many windows there are. Exact up to the
rounding of the sums, and to 1e-8 of the right side where targets have gaps. An owner's sums are not secret: of fewer windows than
features they tell the windows, so let owners be many windows strong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import dataclass
from cellwright.federation.aggregation._sums import check, weighted
from cellwright.federation.contract import Arrays, Task, Update


@dataclass(frozen=True)
class Options(_contract.Options):
    """FedGram has none; the penalty is the network's own option."""


class Rule(_contract.Rule):
    """The sum of the statistics, solved by the network they are of."""

    title = "FedGram"
    paper = "Karr et al., Secure regression on distributed databases, JCGS 14(2), 2005"
    closed_form = True

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._network: Any = None

    def bind(self, task: Task) -> None:
        """The network that solves the sums.

        Raises:
            FederationError: the task's network cannot be built, or is fitted by other means than sums.
        """
        from cellwright.federation.initial import network_of

        network = network_of(task)
        if not network.additive:
            raise FederationError(f"FedGram solves summed statistics, which '{task.model}' does not have; use it with 'ridge'")
        self._network = network

    def weights(self, updates: Sequence[Update]) -> np.ndarray:
        """Statistics are summed, not averaged: 1 each."""
        return np.ones(len(updates))

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        import torch

        if self._network is None:
            raise FederationError("FedGram has not been told what is trained; bind(task) comes before aggregate")
        first = self.checked(updates)[0].delta
        for update in updates:
            check(update, first, first)
        sums = {name: torch.from_numpy(weighted([u.delta[name] for u in updates], self.weights(updates))) for name in first}
        try:
            self._network.solve(sums)
        except (KeyError, ValueError, RuntimeError) as error:
            raise FederationError(f"the owners' sums cannot be solved: {error}") from error
        solved = self._network.state_dict()
        return {name: solved[name].numpy().astype(array.dtype) for name, array in current.items()}
