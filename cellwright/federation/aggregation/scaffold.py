"""SCAFFOLD: owners correct their gradients by how their data pull away from everyone's.

    an owner steps along  g - c_i + c;  c_i is the mean gradient of its last training, c the mean of all c_i
    w <- w + lr · mean of the updates;  c <- c + (sum of the owners' changes of c_i) / owners

Karimireddy et al., SCAFFOLD: stochastic controlled averaging for federated learning, ICML 2020. An owner is sent c as `c/<parameter>`,
keeps c_i, and answers what changed in it as `dc/<parameter>`. Owners count alike, whatever their windows, as in the paper. The paper's
theory is for plain gradient descent (`optimizer: sgd`, at `rate_factor` times the configured learning rate, which is meant for AdamW);
as configured, the variates are of AdamW's steps, which did better (docs/experiments.md). c is the mean over the owners heard of so far:
the rule is not told of others. Not linear in what is sent: from dc_i an owner's update can be told, so that sealing the updates alone
would protect nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import dataclass, option, under
from cellwright.federation.aggregation._sums import moved
from cellwright.federation.contract import Arrays, Local, Update

SENT, CHANGED = "c/", "dc/"  # prefixes of the control variates in an instruction's and an update's extra


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of SCAFFOLD."""

    server_rate: float = option(1.0, "share of the mean update that is taken", low=1e-3, high=10.0)
    optimizer: str = option("configured", "what owners train by", choices=("configured", "sgd"))
    rate_factor: float = option(30.0, "owners' learning rate, in multiples of the configured one; for sgd only", low=1e-3)


class Rule(_contract.Rule):
    """The mean update, and the mean of the owners' control variates."""

    title = "SCAFFOLD"
    paper = "Karimireddy et al., SCAFFOLD: stochastic controlled averaging for federated learning, ICML 2020"
    linear = False

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._sum: Arrays = {}  # of all owners' variates, float64; absent: 0
        self._owners: set[str] = set()  # heard of so far
        self._sent: Arrays = {}  # what all owners are sent this round

    def local(self, local: Local, round_: int) -> Local:
        if self.options.optimizer == "configured":
            return local
        return replace(local, optimizer="sgd", learning_rate=local.learning_rate * self.options.rate_factor)

    def extra(self, owner: str, current: Arrays) -> Arrays:
        """The mean variate, 0 where nothing is known of it yet."""
        self._sent = self._sent or {SENT + name: self._mean(name, array) for name, array in current.items()}
        return self._sent

    def _mean(self, name: str, like: np.ndarray) -> np.ndarray:
        mean = self._sum.get(name, np.zeros(like.shape)) / max(1, len(self._owners))
        return np.asarray(mean, like.dtype)

    def weights(self, updates: Sequence[Update]) -> np.ndarray:
        return np.full(len(updates), 1 / len(updates))

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        changes = [_change(update, current) for update in self.checked(updates)]
        after = moved(current, updates, self.options.server_rate * self.weights(updates))
        total = dict(self._sum)
        for change in changes:
            for name, array in change.items():
                total[name] = np.asarray(total.get(name, 0.0) + array.astype(np.float64))
        self._sum, self._owners, self._sent = total, self._owners | {u.owner for u in updates}, {}
        return after

    def state(self) -> Arrays:
        return {
            **{f"sum/{n}": a for n, a in self._sum.items()},
            **{f"owner/{n}": np.ones(1, np.uint8) for n in sorted(self._owners)},
        }

    def restore(self, state: Arrays) -> None:
        self._sum, self._owners = under(state, "sum/"), set(under(state, "owner/"))
        self._sent = {}


def _change(update: Update, current: Arrays) -> Arrays:
    """How an owner's variate changed.

    Raises:
        FederationError: it does not say, or says it of other parameters.
    """
    change = under(update.extra, CHANGED)
    if not change or any(n not in current or a.shape != current[n].shape for n, a in change.items()):
        raise FederationError(
            f"SCAFFOLD: '{update.owner}' sent {'a control variate of another form' if change else 'no control variate'}; all owners "
            "must run this version"
        )
    return change
