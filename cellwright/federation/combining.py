"""From the updates of a round to the next global weights: plain, from a sealed sum, or with noise on the average (M.3387 9.4, 10.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.contract import Arrays, Update
from cellwright.federation.privacy._contract import Mechanism
from cellwright.federation.sealed_sum import averaged, averages, summed

_NOISE = 2  # of the seeds that derive from (seed, round, purpose)


class Combiner:
    """Applies the rule; where a mechanism works on the average, the rule is given that instead of the owners' updates."""

    def __init__(self, rule: Rule, mechanisms: Sequence[Mechanism], seed: int) -> None:
        """Checks that they go together.

        Raises:
            FederationError: noise belongs on an average, but the rule makes none.
        """
        self.rule, self.seed = rule, seed
        self.finishers = [m for m in mechanisms if type(m).finish is not Mechanism.finish]
        self.equal = any(m.equal_weights for m in mechanisms)
        if self.finishers and not averages(rule):
            raise FederationError(
                f"{self.finishers[0].title} puts noise on the average of the updates, but {rule.title} makes none; choose a rule that "
                "averages (fedavg, fedprox, fedadam, fedyogi), or local_dp or dp_sgd, whose noise is the owners'"
            )

    def plain(self, current: Arrays, updates: Sequence[Update], round_: int) -> Arrays:
        """The next weights from updates in the clear."""
        if not self.finishers:
            return self.rule.aggregate(current, updates)
        shares = np.full(len(updates), 1 / len(updates)) if self.equal else self._shares(updates)
        names = updates[0].delta
        average = {n: _weighted([u.delta[n] for u in updates], shares) for n in names}
        return self._from_average(current, average, sum(u.examples for u in updates), updates, round_)

    def sealed(self, current: Arrays, total: np.ndarray, like: Arrays, updates: Sequence[Update], round_: int) -> Arrays:
        """The next weights from the sum of the sealed vectors; `updates`: what the owners said beside them.

        Raises:
            FederationError: owners counted otherwise than the mechanism demands.
        """
        average, weight = averaged(total, like)
        counted = [u for u in updates if u.examples]
        if self.equal and round(weight, 3) != len(counted):
            raise FederationError(
                f"{self.finishers[0].title} needs every owner to count alike, but {len(counted)} owners sealed a weight of {weight:g}; "
                "all nodes must run the same version"
            )
        return self._from_average(current, average, weight, counted, round_)

    def weights(self, updates: Sequence[Update]) -> dict[str, float]:
        """Each owner's share in the aggregate, where the rule weighs."""
        if self.equal:
            return {u.owner: 1 / len(updates) for u in updates}
        shares = self.rule.weights(updates)
        return {} if shares is None else {u.owner: float(share) for u, share in zip(updates, shares, strict=True)}

    def _from_average(self, current: Arrays, average: Arrays, weight: float, updates: Sequence[Update], round_: int) -> Arrays:
        rng = np.random.default_rng([self.seed, round_, _NOISE])
        for mechanism in self.finishers:
            average = mechanism.finish(average, len(updates), rng)
        return self.rule.aggregate(current, [summed(average, weight, updates, round_)])

    def _shares(self, updates: Sequence[Update]) -> np.ndarray:
        shares = self.rule.weights(updates)
        assert shares is not None  # a linear rule weighs
        return shares


def _weighted(arrays: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Summed in float64, in the order of the owners; float32."""
    total = np.zeros(arrays[0].shape)
    for array, share in zip(arrays, shares, strict=True):
        total += share * array.astype(np.float64)
    return total.astype(np.float32)
