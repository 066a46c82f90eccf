"""The end of a training: which weights it hands back, how good they are at every owner, and whose sites they cover (M.3387 9.1, 9.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cellwright.federation import messages
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.contract import Arrays, Evaluation
from cellwright.federation.costs import Costs
from cellwright.federation.covering import Covered, cover
from cellwright.federation.crew import Crew, peers
from cellwright.federation.deployment import Deployment
from cellwright.federation.judging import Judge, total
from cellwright.federation.management.records import Topology
from cellwright.federation.owner_kit import SHARES
from cellwright.federation.progress import Progress
from cellwright.federation.rounds import Outcome, Rounds, Status


@dataclass(frozen=True)
class Finishing:
    """Of one training."""

    rule: Rule
    settings: Rounds
    progress: Progress
    crew: Crew
    judge: Judge
    deployment: Deployment
    costs: Costs
    planned: Topology  # as it was planned, whatever became of it
    covered: Sequence[str]  # owners that do not train, and are asked for their scaler

    def outcome(self) -> Outcome:
        """Of a training that ended."""
        p = self.progress
        if self.rule.timing == "asynchronous" and self.rule.one_model:
            self._settle()
        if p.best and not self.rule.one_model:
            self.rule.restore(p.best_rule)
        arrays, covered = p.best or p.current, self._cover()
        asked = (*self.crew.peers(), *sorted(covered.answers))
        with self.costs.messages("test") as ledger:
            tested = self.judge.judged(asked, arrays, p.round + 1, ledger, wait_s=self.settings.deadline_s, span="test")
        return self._made(p.ended or "stopped", p.reason, arrays, tested, covered)

    def paused(self, reason: str) -> Outcome:
        """Of one that goes on later: nothing is tested, and nobody is asked for anything."""
        return self._made("paused", reason, self.progress.current, {}, Covered())

    def _settle(self) -> None:
        """Under an asynchronous rule errors lag behind the weights; in the end all owners judge the best and the last ones at once."""
        p, here = self.progress, self.crew.peers()
        if not p.best or p.best is p.current:
            return
        with self.costs.messages("test") as ledger:
            kept, last = (
                self.judge.judged(here, arrays, p.round, ledger, wait_s=self.settings.deadline_s)
                for arrays in (p.best, p.current)
            )
        both = kept.keys() & last.keys()
        best, now = (total(found[owner] for owner in sorted(both)).loss for found in (kept, last))
        if best is not None and now is not None and now < best:
            p.best, p.best_loss = p.current, now

    def _cover(self) -> Covered:
        """The scalers of owners that never took the task; only where one forecaster for all sites is to come of it."""
        told = self.deployment.told
        if not (self.rule.one_model and told.get(SHARES) is True):
            return Covered()
        wanted = ({*self.covered} | {*peers(self.planned, layered=self.crew.layered)}) - self.deployment.answers.keys()
        values = messages.deploy(self.deployment.task, **told).values
        with self.costs.messages("deployment") as ledger:
            return cover(self.judge.post, wanted, values, ledger, round_=self.progress.round, wait_s=self.settings.deadline_s)

    def _made(self, status: Status, reason: str, arrays: Arrays, tested: Mapping[str, Evaluation], covered: Covered) -> Outcome:
        here, out = self.crew.peers(), self.crew.out()
        return Outcome(
            arrays=arrays,
            own={} if self.rule.one_model else {owner: self.rule.start_for(owner, arrays) for owner in here},
            rounds=tuple(self.progress.records),
            status=status,
            reason=reason,
            evaluations=tested,
            topology=self.crew.topology,
            reliability={node: self._reliability(node) for node in sorted({*here, *out})},
            lost=out,
            deployed={**self.deployment.answers, **covered.answers},
            uncovered=covered.missing,
        )

    def _reliability(self, node: str) -> float:
        """As the auditor sees it; without one, as the coordinator does."""
        auditor = self.judge.post.auditor
        return auditor.reliability(node) if auditor is not None else self.crew.reliability.get(node, 1.0)
