"""What every aggregation rule keeps to: it sees arrays, never messages, and its state can be kept and given back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.aggregation._sums import check
from cellwright.federation.contract import Arrays, Local, Task, Timing, Update
from models._contract import Options, option

__all__ = [
    "FlowerRule",
    "Options",
    "Rule",
    "by_examples",
    "dataclass",
    "option",
    "under",
]  # members import all they need from here


class Rule(ABC):
    """From the global weights and the owners' updates to the next global weights.

    A member file holds `Options` (frozen, each field `option(default, doc, low=…)`) and `Rule`, and declares what follows.
    What it remembers is replaced, never changed in place: a shallow copy may be asked what would have been without an owner.
    Updates come sorted by owner, so that a seed gives one result. All arrays of `current` are float32; the sums are made in float64.
    """

    title: ClassVar[str]  # for people: "FedProx"
    paper: ClassVar[str] = ""
    timing: ClassVar[Timing] = "synchronous"
    linear: ClassVar[bool] = True  # asks no more than a weighted sum of updates: what secure aggregation and CKKS can compute
    adaptive: ClassVar[bool] = False  # the coordinator takes an optimiser's step along the average, not the average itself
    robust: ClassVar[bool] = False  # holds its error with up to 30 % poisoned updates
    closed_form: ClassVar[bool] = False  # owners send statistics once instead of updates over rounds
    one_model: ClassVar[bool] = True  # false: owners end with models of their own (clusters, private heads)
    regional: ClassVar[bool] = False  # aggregates at the edges first; wants a topology with regions
    least: ClassVar[int] = 1  # fewest updates it can aggregate

    def __init__(self, options: Any) -> None:
        self.options = options

    def local(self, local: Local, round_: int) -> Local:
        """How owners train under this rule; by default as configured."""
        return local

    def extra(self, owner: str, current: Arrays) -> Arrays:
        """What the owner is sent beside the weights; by default nothing."""
        return {}

    def start_for(self, owner: str, current: Arrays) -> Arrays:
        """The weights that an owner trains from and is evaluated with; by default the global ones."""
        return current

    def bind(self, task: Task) -> None:  # noqa: B027 - most rules need no more than arrays
        """What is trained, told before the first round; a `closed_form` rule needs the network that solves its statistics."""

    def place(self, regions: Mapping[str, Sequence[str]]) -> None:  # noqa: B027 - most rules know no regions
        """Which owners lie at which edge, told before the first round and after every change of the topology."""

    def wanted(self, asked: int) -> int:
        """How many of the updates asked for it waits for, the deadline aside; by default all of them."""
        return asked

    def deadline_s(self, configured: float) -> float:
        """How long a round waits for its updates, seconds; by default as configured."""
        return configured

    def weights(self, updates: Sequence[Update]) -> np.ndarray | None:
        """Share of each update in the aggregate, (updates,) float64; by default by examples. None: the rule does not weigh."""
        return by_examples(updates) if self.linear else None

    @abstractmethod
    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        """The next global weights. `updates` are at least `least`; none holds a value that is not finite."""

    def checked(self, updates: Sequence[Update]) -> Sequence[Update]:
        """The updates, if they are enough.

        Raises:
            FederationError: fewer than the rule needs.
        """
        if len(updates) < self.least:
            raise FederationError(
                f"{self.title} needs at least {self.least} updates a round, {len(updates)} came; bring more nodes, lengthen "
                "federation.deadline_s, or choose a rule that needs fewer"
            )
        return updates

    def state(self) -> Arrays:
        """What it remembers between rounds, for a checkpoint; by default nothing."""
        return {}

    def restore(self, state: Arrays) -> None:  # noqa: B027 - nothing to take back by default
        """Take back what `state` gave."""


class FlowerRule(Rule):
    """A rule that Flower has: its own strategy aggregates, in runtimes/flower.py."""

    strategy: ClassVar[str]  # name in flwr.serverapp.strategy
    keeps: ClassVar[tuple[str, ...]] = ()  # the strategy's attributes that last over rounds, each arrays by parameter ("m_t")

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.rounds = 0  # aggregated so far
        self.kept: dict[str, Arrays] = {}  # what `keeps` names, float64; empty before the first round

    def arguments(self, owners: int) -> dict[str, Any]:
        """Keyword arguments of the strategy's constructor, for a round with so many updates."""
        return {}

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        from cellwright.federation.runtimes.flower import aggregate

        by_examples(self.checked(updates))  # Flower divides by their sum
        for update in updates:
            check(update, current, current)
        return aggregate(self, current, updates)

    def state(self) -> Arrays:
        if not self.keeps:
            return {}
        arrays = {f"{name}/{p}": array for name, kept in self.kept.items() for p, array in kept.items()}
        return {"rounds": np.array([self.rounds], np.int64), **arrays}

    def restore(self, state: Arrays) -> None:
        self.rounds = int(state["rounds"][0]) if self.keeps else 0
        self.kept = {name: under(state, f"{name}/") for name in self.keeps} if self.rounds else {}


def by_examples(updates: Sequence[Update]) -> np.ndarray:
    """Share of each update by the windows behind it, (updates,) float64.

    Raises:
        FederationError: none of the owners holds any.
    """
    examples = np.array([u.examples for u in updates], np.float64)
    if not examples.sum() > 0:
        raise FederationError("none of the updates rests on any training window; ask owners whose data cover the training span")
    return examples / examples.sum()


def under(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays under a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
