"""How far a training is: everything that an uninterrupted one would carry from one round to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellwright.federation.contract import Arrays, Evaluation
from cellwright.federation.ledger import plus
from cellwright.federation.results import Round
from cellwright.federation.rounds import Rounds, Status

_BETTER = 1e-4  # relative: smaller gains do not reset the patience; as in central training


@dataclass
class Progress:
    """Stored whole after every round."""

    current: Arrays
    learning_rate: float
    rounds_allowed: int
    round: int = 0  # rounds that ended
    attempt: int = 0  # processes that worked on it
    paused: bool = False  # between two rounds: of the next one nothing has been sent
    best: Arrays = field(default_factory=dict)  # weights with the best validation loss
    best_rule: Arrays = field(default_factory=dict)  # the rule's state then, where owners end with several models
    best_loss: float = float("inf")
    stale: int = 0  # rounds since the best one
    since_cut: int = 0  # rounds without a better loss since the learning rate was last halved
    short: int = 0  # rounds in a row that had too few updates
    elapsed_s: float = 0.0  # of the channel's clock, of all processes
    energy_j: float | None = None
    latest: dict[str, Evaluation] = field(default_factory=dict)  # each owner's last word on the validation span
    examples: dict[str, int] = field(default_factory=dict)  # windows of each owner, as far as is known
    records: list[Round] = field(default_factory=list)
    ended: Status | None = None
    reason: str = ""

    def judge(self, loss: float, rule_state: Arrays, settings: Rounds) -> str:
        """Keep the best weights, halve the rate on a plateau, and end when patience does; says what was done."""
        better = loss < self.best_loss * (1 - _BETTER)
        if loss < self.best_loss:
            self.best_loss, self.best, self.best_rule = loss, self.current, rule_state
        self.stale, self.since_cut = (0, 0) if better else (self.stale + 1, self.since_cut + 1)
        if self.stale >= settings.patience:
            self.end("converged", f"no better validation loss for {self.stale} rounds; the best is {self.best_loss:.6g}")
            return ""
        if settings.lr_patience and self.since_cut >= settings.lr_patience:
            self.since_cut = 0
            self.learning_rate *= 0.5
            return f"no better validation loss for {self.stale} rounds: learning rate halved to {self.learning_rate:g}"
        return ""

    def spend(self, seconds: float, energy_j: float | None) -> None:
        """Time and energy of a round."""
        self.elapsed_s += seconds
        self.energy_j = plus(self.energy_j, energy_j)

    def limit(self, settings: Rounds) -> None:
        """End where rounds or budgets do."""
        if self.round >= self.rounds_allowed:
            self.end("rounds", f"all {self.rounds_allowed} rounds are done")
        elif settings.budget_s is not None and self.elapsed_s >= settings.budget_s:
            self.end("budget", f"{self.elapsed_s:.6g} s were spent, {settings.budget_s:g} s were allowed (federation.budget_s)")
        elif settings.budget_j is not None and (self.energy_j or 0.0) >= settings.budget_j:
            self.end("budget", f"{self.energy_j:.6g} J were spent, {settings.budget_j:g} J were allowed (federation.budget_j)")

    def end(self, status: Status, reason: str) -> None:
        """The first reason to end is the one that counts."""
        if self.ended is None:
            self.ended, self.reason = status, reason
