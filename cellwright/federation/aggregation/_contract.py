"""What every aggregation rule keeps to: it sees arrays, never messages, and its state can be kept and given back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays, Local, Timing, Update
from models._contract import Options, option

__all__ = ["FlowerRule", "Options", "Rule", "dataclass", "option"]  # members import all they need from here


class Rule(ABC):
    """From the global weights and the owners' updates to the next global weights.

    A member file holds `Options` (frozen, each field `option(default, doc, low=…)`) and `Rule`, and declares what follows.
    Updates come sorted by owner, so that a seed gives one result. All arrays of `current` are float32; the sums are made in float64.
    """

    title: ClassVar[str]  # for people: "FedProx"
    paper: ClassVar[str] = ""
    timing: ClassVar[Timing] = "synchronous"
    linear: ClassVar[bool] = True  # a weighted sum of updates: what secure aggregation and CKKS can compute
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

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the strategy's constructor."""
        return {}

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        from cellwright.federation.runtimes.flower import aggregate

        return aggregate(self, current, self.checked(updates))
