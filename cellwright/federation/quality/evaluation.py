"""What is done about the quality of the model after each round (M.3387 9.5): stop, lower the rate, drop a node, ask for more rounds.

The coordinator itself keeps the best weights, halves the rate on a plateau and ends when patience does. This policy adds what a
request asks for, and what a round's record shows beyond its error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from cellwright.errors import ParamsError
from cellwright.federation.results import OwnerRound, Round
from cellwright.federation.rounds import Decision

_DECAY = 0.75  # a rate that fell by less from one round to the next was not lowered, it decays (federation.lr_decay)
HIGHER_IS_BETTER = {"mse": False, "mae": False, "rmse": False, "precision": True, "recall": True, "auc": True, "f1": True}


@dataclass(frozen=True)
class Policy:
    """Limits of the policy; each can be switched off by its extreme value."""

    target: Mapping[str, float]  # metric -> value to reach, all of them
    rounds: int  # that are allowed at first
    more_share: float = 0.5  # of `rounds`, that may be added while the error still falls
    falling: float = 0.01  # relative gain over the last quarter of the rounds that counts as still falling
    rising: int = 5  # rounds in a row with a higher error, after which the rate is lowered; momentum may overshoot for a few
    harmful_ratio: float = 5.0  # training loss of a node, in medians of the round, above which it does harm
    harmful_rounds: int = 4  # so often in a row, or refused so often
    least_owners: int = 2  # nobody is dropped below these

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.target) - set(HIGHER_IS_BETTER)):
            raise ParamsError(f"target quality '{unknown[0]}' is no metric; there are {', '.join(sorted(HIGHER_IS_BETTER))}")

    def decide(self, rounds: Sequence[Round]) -> Decision:
        """Judge after every round; the strongest reason decides, its words go into the round's record."""
        if reached := self._reached(rounds[-1]):
            return Decision(stop="target", words=reached)
        if harmful := self._harmful(rounds):
            return Decision(drop=tuple(harmful), words="; ".join(f"{node}: {why}" for node, why in harmful.items()))
        if more := self._more(rounds):
            return Decision(more_rounds=more, words=f"the validation error still falls: {more} rounds more")
        if self._rises(rounds):
            return Decision(
                rate_factor=0.5, words=f"the validation error rose {self.rising} rounds running: learning rate halved"
            )
        return Decision()

    def _reached(self, last: Round) -> str:
        """Words, if every target is reached; "" if one is not, or there is none."""
        if not self.target:
            return ""
        found = {name: metric(last, name) for name in self.target}
        for name, wanted in self.target.items():
            value = found[name]
            if value is None or (value < wanted if HIGHER_IS_BETTER[name] else value > wanted):
                return ""
        return "target reached: " + ", ".join(
            f"{name} {found[name]:.6g} (asked {wanted:g})" for name, wanted in self.target.items()
        )

    def _harmful(self, rounds: Sequence[Round]) -> dict[str, str]:
        """Nodes that were refused, or trained far worse than the others, in each of the last rounds that asked them."""
        present = [entry.owner for entry in rounds[-1].owners]
        found: dict[str, str] = {}
        for owner in present:
            told = [pair for r in reversed(rounds[-4 * self.harmful_rounds :]) if (pair := _entry(r, owner))][
                : self.harmful_rounds
            ]
            if len(told) < self.harmful_rounds:
                continue
            if all(entry.outcome == "refused" for entry, _ in told):
                found[owner] = f"refused {len(told)} rounds running ({told[0][0].reason})"
            elif all(self._far(entry, usual) for entry, usual in told):
                found[owner] = f"its training loss was over {self.harmful_ratio:g} times the others' for {len(told)} rounds"
        return dict(list(found.items())[: max(0, len(present) - self.least_owners)])

    def _far(self, entry: OwnerRound, usual: float) -> bool:
        return entry.train_loss is not None and usual > 0 and entry.train_loss > self.harmful_ratio * usual

    def _more(self, rounds: Sequence[Round]) -> int:
        """How many rounds to add: once, at the last that was allowed, while the error still falls."""
        if len(rounds) != self.rounds or self.more_share <= 0:
            return 0
        losses = [r.validation_loss for r in rounds if r.validation_loss is not None]
        back = max(2, len(losses) // 4)
        if len(losses) <= back:
            return 0
        before, now = min(losses[:-back]), min(losses[-back:])
        return math.ceil(self.rounds * self.more_share) if now < before * (1 - self.falling) else 0

    def _rises(self, rounds: Sequence[Round]) -> bool:
        """Each of the last rounds worse than the one before, and none since the rate was last lowered."""
        last = rounds[-self.rising - 1 :]
        losses = [r.validation_loss for r in last if r.validation_loss is not None]
        same_rate = min(b.learning_rate / a.learning_rate for a, b in pairwise(last)) > _DECAY if len(last) > 1 else False
        return len(losses) > self.rising and same_rate and all(b > a for a, b in pairwise(losses))


def metric(record: Round, name: str) -> float | None:
    """A metric of a round's validation; None: it was not measured."""
    if name == "rmse":
        return None if record.mse is None else math.sqrt(record.mse)
    if name == "f1":
        p, r = record.precision, record.recall
        return None if p is None or r is None else (2 * p * r / (p + r) if p + r else 0.0)
    value: float | None = getattr(record, name)
    return value


def _entry(record: Round, owner: str) -> tuple[OwnerRound, float] | None:
    """An owner's line of a round, with the others' usual training loss; None: it was asked for no update."""
    mine = next((e for e in record.owners if e.owner == owner and e.outcome in ("counted", "late", "refused")), None)
    others = [e.train_loss for e in record.owners if e.owner != owner and e.train_loss is not None]
    return (mine, median(others) if others else 0.0) if mine else None
