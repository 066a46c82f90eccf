"""How much each owner's updates lowered the error: models of groups, rebuilt from the rounds that were run (M.3387 8.4.2).

A few rounds, evenly spread, are kept as they came: the weights before them and every owner's update. What the aggregation would have
made of a group's updates alone is judged by the owners themselves on their validation spans; no data leave them. The values of the rounds
kept are added up and speak of these rounds alone: the first gains far more than a later one, so that nothing is extrapolated. Under a
sealed sum nobody sees an owner's update, so that nothing can be said.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.contract import Arrays, Update
from cellwright.federation.observed import Shelf
from cellwright.federation.quality.incentive import Contribution, contributions

Judge = Callable[[Arrays], float]  # validation MAE over all owners, raw units


@dataclass(frozen=True)
class Kept:
    """One round as it came."""

    round: int
    current: Arrays
    updates: tuple[Update, ...]
    rule: Arrays  # the rule's state before it


@dataclass
class Observer:
    """Keeps every n-th round; when there are more than `most`, every second of them goes."""

    rule: Rule
    most: int
    kept: list[Kept] = field(default_factory=list)
    seen: int = 0
    shelf: Shelf | None = None  # where they are kept on disk; None: nowhere
    _every: int = 1
    _last: int = 0  # round that was shown last

    def resume(self) -> None:
        """Go on with what an interrupted process saw.

        Raises:
            FederationError: a file of it is damaged.
        """
        if self.shelf is not None and (told := self.shelf.index()):
            self.seen, self._every, self._last = told["seen"], told["every"], told["last"]
            self.kept = self.shelf.kept()

    def __call__(self, round_: int, current: Arrays, updates: Sequence[Update]) -> None:
        """What the coordinator shows before it aggregates."""
        if round_ <= self._last:  # a round that is done anew after a kill, in the same way
            return
        self.seen, self._last = self.seen + 1, round_
        if (self.seen - 1) % self._every == 0:
            self._keep(round_, current, updates)
        if self.shelf is not None:
            self.shelf.keep(self.kept, {"seen": self.seen, "every": self._every, "last": self._last})

    def _keep(self, round_: int, current: Arrays, updates: Sequence[Update]) -> None:
        state = {name: array.copy() for name, array in self.rule.state().items()}
        self.kept.append(Kept(round_, current, tuple(updates), state))
        if len(self.kept) > 2 * self.most - 1:
            self.kept, self._every = self.kept[::2], self._every * 2

    @property
    def chosen(self) -> list[Kept]:
        """At most `most` of those kept, evenly spread."""
        if len(self.kept) <= self.most:
            return self.kept
        return [self.kept[i] for i in np.linspace(0, len(self.kept) - 1, self.most).round().astype(int)]


def gains(observer: Observer, judge: Judge, *, orders: int, seed: int) -> dict[str, Contribution]:
    """Each owner's part of the fall of the validation MAE in the rounds that were kept, added up; empty: no round was seen."""
    rounds = observer.chosen
    if not rounds:
        return {}
    found = [_of_round(kept, observer.rule, judge, orders, np.random.default_rng([seed, kept.round])) for kept in rounds]
    owners = sorted({owner for each in found for owner in each})
    return {owner: _summed([each[owner] for each in found if owner in each]) for owner in owners}


def _of_round(kept: Kept, rule: Rule, judge: Judge, orders: int, rng: np.random.Generator) -> Mapping[str, Contribution]:
    def error(group: frozenset[str]) -> float:
        return judge(_without_others(kept, rule, group))

    return contributions([u.owner for u in kept.updates], error, rng=rng, permutations=orders)


def _without_others(kept: Kept, rule: Rule, group: frozenset[str]) -> Arrays:
    """The weights that the rule makes of the group's updates; of too few, as they were before."""
    updates = [u for u in kept.updates if u.owner in group]
    if len(updates) < max(1, rule.least):
        return kept.current
    fresh = copy.copy(rule)
    if kept.rule:
        fresh.restore({name: array.copy() for name, array in kept.rule.items()})
    return fresh.aggregate(kept.current, updates)


def _summed(found: Sequence[Contribution]) -> Contribution:
    return Contribution(
        shapley=sum(c.shapley for c in found),
        leave_one_out=sum(c.leave_one_out for c in found),
        evaluations=sum(c.evaluations for c in found),
    )
