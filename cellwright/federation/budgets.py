"""Privacy budgets over a training: whether one more round fits, and what each round has spent (M.3387 10.5).

What is not known counts as the worst: whoever was asked may have sent something, an interrupted round may have been released whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellwright.federation.collecting import Collected, Turn
from cellwright.federation.crew import Crew
from cellwright.federation.privacy._budget import over_budget
from cellwright.federation.privacy._contract import Mechanism, Participation
from cellwright.federation.progress import Progress
from cellwright.federation.rounds import Rounds


@dataclass(frozen=True)
class Budgets:
    """Of all mechanisms of one training."""

    mechanisms: Sequence[Mechanism]
    settings: Rounds
    progress: Progress
    crew: Crew

    def allow(self, turn: Turn) -> bool:
        """Whether every budget allows one more round; ends the training where one does not."""
        why = over_budget(self.mechanisms, self._participation(turn.round, self.crew.peers(), turn.local.steps))
        if why:
            self.progress.end("privacy_budget", why)
        return not why

    def count(self, turn: Turn, collected: Collected) -> None:
        """Whoever was asked may have sent something, counted or not."""
        if collected.asked:
            steps = [e.steps for e in turn.ledger.entries.values()]
            done = self._participation(turn.round, collected.asked, max([*steps, turn.local.steps]))
            for mechanism in self.mechanisms:
                mechanism.account(done)

    def once_more(self, turn: Turn, failed: Collected) -> bool:
        """Whether a sealed sum that failed may be tried again: the one that failed counts, and the budget must allow another."""
        self.count(turn, failed)
        return not over_budget(self.mechanisms, self._participation(turn.round, failed.asked, turn.local.steps))

    def count_interrupted(self) -> None:
        """A round that was not kept to its end may have been released, all of it; it is done anew, with other noise."""
        p = self.progress
        done = self._participation(p.round + 1, self.crew.peers(), self.settings.local.steps)
        if p.paused or p.ended is not None or p.round >= p.rounds_allowed or over_budget(self.mechanisms, done):
            return  # none was begun
        for mechanism in self.mechanisms:
            mechanism.account_again(done)

    def _participation(self, round_: int, owners: Sequence[str], steps: int) -> Participation:
        """What is not known counts as the worst: an owner that has not told its windows, as one of a single window."""
        asked = [owner for owner in owners if owner not in self.crew.empty]
        examples = min((self.progress.examples.get(owner, 1) for owner in asked), default=1)
        batch = self.settings.local.batch
        return Participation(round_, len(asked), len(self.crew.peers()), steps, batch, max(1, examples))
