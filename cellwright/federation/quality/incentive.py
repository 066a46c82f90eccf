"""What each node contributed, and what it is rewarded with (M.3387 8.4.2, 9.4).

The contribution to the model is a Shapley value: the mean gain of validation error that an owner brings to the groups it can join.
It is estimated from the updates of the rounds that were run, nothing is trained again: the model of a group is what the aggregation
would have made of its members' updates alone. Permutations are truncated where the rest of the gain is too small to matter, and
guided so that each owner comes first equally often.

Sources: Shapley, "A value for n-person games" (1953); Ghorbani and Zou, "Data Shapley", ICML 2019 (truncation); Liu et al., "GTG-Shapley",
ACM TIST 2022 (guided truncation, between rounds and within them); Song et al., "Profit allocation for federated learning", IEEE Big
Data 2019 (models of groups rebuilt from updates).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Utility = Callable[[frozenset[str]], float]  # validation error of the model of a group, lower is better; of nobody: the start


@dataclass(frozen=True)
class Spending:
    """What a node put in."""

    cpu_s: float
    energy_j: float | None
    bytes_: int


@dataclass(frozen=True)
class Contribution:
    """What a node brought. Gains are in the unit of the utility: how much lower the error is."""

    shapley: float
    leave_one_out: float
    evaluations: int  # models of groups that were judged, for all nodes together


@dataclass(frozen=True)
class Incentive:
    """How contribution becomes reward: a share for quality, the rest for resources, times reliability."""

    pot: float = 1.0  # what is given out in all
    quality_share: float = 0.7

    def rewards(
        self, contributions: Mapping[str, float], spending: Mapping[str, Spending], reliability: Mapping[str, float]
    ) -> dict[str, float]:
        """pot × reliability × (quality_share × gain / all gains + (1 - quality_share) × CPU-seconds / all CPU-seconds).

        A negative contribution earns nothing for quality. The rewards add up to at most the pot; what unreliable nodes lose is kept.
        """
        gains = {node: max(0.0, gain) for node, gain in contributions.items()}
        all_gain, all_cpu_s = sum(gains.values()), sum(s.cpu_s for s in spending.values())
        return {
            node: self.pot
            * reliability.get(node, 1.0)
            * (
                self.quality_share * (gains[node] / all_gain if all_gain else 1 / len(gains))
                + (1 - self.quality_share) * (spending[node].cpu_s / all_cpu_s if all_cpu_s else 1 / len(gains))
            )
            for node in gains
        }


def contributions(
    nodes: Sequence[str],
    utility: Utility,
    *,
    rng: np.random.Generator,
    permutations: int = 25,
    tolerance: float = 0.03,
    converged: float = 0.02,
) -> dict[str, Contribution]:
    """Shapley values by guided, truncated sampling, and the gain that is lost when a node is left out.

    Args:
        permutations: orders that are gone through at most.
        tolerance: an order is broken off where the rest of the gain is below this share of all of it.
        converged: sampling ends when the values changed by no more than this share of all gain over the last quarter of the orders;
            below 0 it never ends early.
    """
    known = _Known(utility)
    everyone, nobody = frozenset(nodes), frozenset[str]()
    whole = known(nobody) - known(everyone)
    sums, firsts = np.zeros(len(nodes)), rng.permutation(len(nodes))
    history: list[np.ndarray] = []
    for number in range(permutations):
        sums += _one_order(_order(nodes, int(firsts[number % len(nodes)]), rng), nodes, known, everyone, tolerance * abs(whole))
        history.append(sums / (number + 1))
        if _settled(history, converged * abs(whole), len(nodes)):
            break
    alone = {node: known(everyone - {node}) - known(everyone) for node in nodes}
    return {node: Contribution(float(history[-1][i]), alone[node], known.asked) for i, node in enumerate(nodes)}


class _Known:
    """A utility that is asked once for each group."""

    def __init__(self, utility: Utility) -> None:
        self.utility, self.values = utility, dict[frozenset[str], float]()

    def __call__(self, group: frozenset[str]) -> float:
        if group not in self.values:
            self.values[group] = self.utility(group)
        return self.values[group]

    @property
    def asked(self) -> int:
        return len(self.values)


def _order(nodes: Sequence[str], place: int, rng: np.random.Generator) -> list[str]:
    """A random order that begins with the node at `place`: who is first gains most, so all have their turn."""
    first = nodes[place]
    rest = [node for node in nodes if node != first]
    return [first, *(rest[i] for i in rng.permutation(len(rest)))]


def _one_order(order: Sequence[str], nodes: Sequence[str], known: _Known, everyone: frozenset[str], small: float) -> np.ndarray:
    """(nodes,) gain of each as it joins those before it; 0 once what is left is too small."""
    place, gains = {node: i for i, node in enumerate(nodes)}, np.zeros(len(nodes))
    group: frozenset[str] = frozenset()
    error, last = known(group), known(everyone)
    for node in order:
        if abs(error - last) <= small:
            break
        group |= {node}
        now = known(group)
        gains[place[node]], error = error - now, now
    return gains


def _settled(history: list[np.ndarray], small: float, nodes: int) -> bool:
    """Whether the last quarter of the orders changed nothing that matters; each node has been first once before."""
    if len(history) < max(8, nodes):
        return False
    before = history[-max(2, len(history) // 4)]
    return bool(np.abs(history[-1] - before).max() <= small)
