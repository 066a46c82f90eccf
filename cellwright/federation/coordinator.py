"""The coordinator: rounds, and what is done about what goes wrong in them (M.3387 8.4, 9.4).

    choose members -> (stages of a sealed sum) -> "train" -> audit, decode, bound -> aggregate -> noise on the average -> account
      -> "evaluate" -> record -> keep the best, halve the rate, patience -> quality management decides -> checkpoint -> next

The same code runs on simulated and on wall-clock time: the channel says what time it is. It knows neither Flower nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.errors import FederationError
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.budgets import Budgets
from cellwright.federation.collecting import Collected, Collector, Turn
from cellwright.federation.combining import Combiner
from cellwright.federation.compression._contract import Codec
from cellwright.federation.contract import Arrays, Channel, Parcel, Task, Update, Value
from cellwright.federation.costs import Costs
from cellwright.federation.crew import Crew, Rebuild, pruned
from cellwright.federation.deployment import Deployment
from cellwright.federation.finishing import Finishing
from cellwright.federation.gathering import Gatherer
from cellwright.federation.judging import NOTHING_TOLD, Judge, Total, total
from cellwright.federation.keeping import Keeper
from cellwright.federation.ledger import Ledger
from cellwright.federation.management.records import Topology
from cellwright.federation.pacing import Pacing
from cellwright.federation.post import Post
from cellwright.federation.privacy._budget import most_spent
from cellwright.federation.privacy._contract import Mechanism
from cellwright.federation.progress import Progress
from cellwright.federation.results import Round
from cellwright.federation.rounds import Guarded, Outcome, Pause, Quality, Rounds
from cellwright.federation.sealed_sum import check_rule, sealing
from cellwright.federation.steering import Steering

if TYPE_CHECKING:
    from cellwright.federation.audit.auditor import Auditor
    from cellwright.federation.audit.signing import Signer
    from cellwright.federation.data.at_rest import AtRest

_SHORT = 3  # rounds in a row with too few updates, after which it is no use to go on
_FOR_SUMS = ("fedavg", "fedprox", "fedadam", "fedyogi", "personalised")  # named where another rule meets a sealed sum

Align = Callable[[Mapping[str, Parcel]], Mapping[str, str]]  # replies to "metadata" -> owners that do not fit, and why


class Coordinator:
    """Trains one model with the nodes of a channel."""

    def __init__(
        self,
        channel: Channel,
        task: Task,
        rule: Rule,
        settings: Rounds,
        *,
        mechanisms: Sequence[Mechanism] = (),
        codec: Codec,
        topology: Topology,
        auditor: Auditor | None = None,
        signer: Signer | None = None,
        quality: Quality | None = None,
        checkpoint: Path | None = None,
        at_rest: AtRest | None = None,
        on_round: Callable[[Round], None] | None = None,
        between: Callable[[int], Pause | None] | None = None,
        rebuild: Rebuild | None = None,
        observe: Callable[[int, Arrays, Sequence[Update]], None] | None = None,
        deploy: Mapping[str, Value] | None = None,
        speeds: Mapping[str, float] | None = None,
        align: Align | None = None,
        covered: Sequence[str] = (),
        costs: Costs | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            between: asked before every round, with the number of those that ended: whether to pause, cancel, or change the topology.
            rebuild: service topology reconstruction; None: nodes that are out are left out.
            observe: sees each round's number, weights and updates before they are aggregated; of a sealed sum nothing, nor where
                noise goes on the average: what is made of a group's updates would reach the owners without it.
            at_rest: how the checkpoint lies on the disk; None: open.
            deploy: what owners are told beside the task (owner_kit.deployed_values).
            align: told what the owners say of their data; returns who does not fit, and why.
            costs: what earlier processes spent; None: nothing.
            covered: owners that do not train, and are asked for their scaler when the training is over (covering.py).
            speeds: seconds a training step takes each node, as far as the FMLMS knows; else as the nodes themselves report.

        Raises:
            FederationError: rule and mechanisms do not go together.
        """
        self.channel, self.task, self.rule, self.settings = channel, task, rule, settings
        self.mechanisms, self.auditor, self.quality = tuple(mechanisms), auditor, quality
        self.on_round, self.between, self.align = on_round, between, align
        self._seal = sealing(self.mechanisms)
        if self._seal is not None:
            check_rule(rule, self._seal, _FOR_SUMS)
        self._combiner = Combiner(rule, self.mechanisms, settings.seed)
        if self._combiner.finishers and settings.target_mse is not None:
            raise FederationError(
                f"federation.target_mse is {settings.target_mse:g}, but under {self._combiner.finishers[0].title} no error decides "
                "anything: the owners' are without its noise; unset it"
            )
        self.observe = None if self._combiner.finishers else observe
        self._post = Post(channel, sender=topology.coordinator, request=task.request, signer=signer, auditor=auditor)
        self.costs = costs or Costs()
        self.costs.auditor = lambda: self._post.auditor_cpu_s
        self._judge = Judge(self._post, rule)
        self._steering = Steering(rule, settings, noisy=bool(self._combiner.finishers))
        self._gatherer = Gatherer(self._post, rule, codec, self.mechanisms, Pacing.reported(speeds or {}))
        self._first, self._rebuild = topology, rebuild or pruned(topology)
        self._told, self._covered = dict(deploy or {}), tuple(covered)
        self._keeper = Keeper(checkpoint, task, settings, self._gatherer, self._judge, self.mechanisms, at_rest)

    def run(self, initial: Arrays) -> Outcome:
        """Train from these weights, or from where the checkpoint stands, until something ends it.

        Raises:
            FederationError: too few nodes are left, or answer; what was done so far is in the checkpoint.
            CellwrightError: whatever else cannot go on.
        """
        with self.costs.during("deployment"):
            self._begin(initial)
        progress = self.progress
        while progress.ended is None:
            progress.limit(self.settings)
            if progress.ended is None and (pause := self.between(progress.round) if self.between else None):
                if pause.kind == "pause":
                    progress.paused = True
                    self._keep()
                    return self._finishing().paused(pause.reason)
                if pause.topology is None:
                    progress.end("stopped", pause.reason)
                else:
                    self._deployment.adopt(pause.topology)
            if progress.ended is None:
                with self.costs.during("training"):
                    self._round()
        return self._finishing().outcome()

    def error(self, arrays: Arrays) -> float | None:
        """Error of weights over all owners' validation spans, judged by the owners: MAE, raw units; of a classification 1 − AUC.

        None: nothing was measured, or there was no event to tell from the others.
        """
        here = [node for node in self.crew.peers() if node not in self.crew.empty]
        with self.costs.messages("contribution") as ledger:
            found = self._judge.judged(here, arrays, self.progress.round, ledger, wait_s=self.settings.deadline_s)
        judged = total(found.values())
        if self.task.kind == "classification":
            return None if judged.told.auc is None else 1.0 - judged.told.auc
        return judged.mae

    def dismiss(self) -> None:
        """Tell the nodes that the training is over, so that they forget its task."""
        peers = self.crew.peers()
        last, wait_s = self.progress.round + 1, self.settings.deadline_s
        with self.costs.messages("deployment") as ledger:
            self._post.ask("finish", dict.fromkeys(peers, Parcel()), ledger, round_=last, wait_s=wait_s)

    # -- beginning

    def _begin(self, initial: Arrays) -> None:
        saved, s = self._keeper.load(), self.settings
        if saved is None:
            current = {name: array.copy() for name, array in initial.items()}
            self.progress = Progress(current, s.local.learning_rate, s.rounds)
            self.crew = Crew.of(self._first, self.channel.nodes())
        else:
            self.progress, self.crew = saved.progress, saved.crew
            known = self.crew.topology
            if self._first.request != known.request or self._first.version > known.version:
                self.crew.adopt(self._first)  # planned anew since: another request, or other nodes after a pause
        self.progress.attempt += 1
        self._post.resume(self.progress.attempt)
        self._collector = Collector(self._gatherer, self._judge, self.crew, s)
        self._deployment = Deployment(
            self.task, self._told, self._gatherer, self.crew, self.progress, self._rebuild, s.deadline_s, self.costs
        )
        self._budgets = Budgets(self.mechanisms, s, self.progress, self.crew)
        self.rule.bind(self.task)
        self.rule.place(self.crew.topology.regions)
        if saved is not None:
            self._keeper.restore(saved)
        self._deployment.notice([], Ledger())
        self._deployment.deploy(self.crew.peers())
        if saved is None and self.align is not None:
            self._align(self.align)
        self.crew.check(s.least_owners)
        if saved is not None:
            self._budgets.count_interrupted()
            self._keeper.resume(saved, self.crew)
        self.progress.paused = False
        self._keep()

    def _align(self, align: Align) -> None:
        """Ask the owners for the metadata of their data, and leave out those whose features do not align (M.3387 10.1, 10.4)."""
        peers = self.crew.peers()
        with self.costs.messages("deployment") as ledger:
            came = self._post.ask("metadata", dict.fromkeys(peers, Parcel()), ledger, round_=0, wait_s=self.settings.deadline_s)
        for owner, why in sorted(align(came.parcels).items()):
            self.crew.drop([owner], why, self._rebuild)

    def _keep(self) -> None:
        self._keeper.keep(self.progress, self.crew)
        self.costs.keep()

    # -- a round

    def _round(self) -> None:
        p, s = self.progress, self.settings
        ledger, events, began = Ledger(), list[str](), self.channel.now()
        self._deployment.notice(events, ledger)
        events += self.channel.turned_away() if isinstance(self.channel, Guarded) else ()
        self.crew.check(s.least_owners)
        local = replace(s.local, learning_rate=p.learning_rate)
        turn = Turn(p.round + 1, p.current, local, self.rule.deadline_s(s.deadline_s), ledger, p.latest)
        self._gatherer.forget(turn.deadline_s)
        if not self._budgets.allow(turn):
            return
        collected = self._collect(turn)
        self._budgets.count(turn, collected)
        events += [*collected.events, *self._expelled(collected)]
        self._deployment.notice(events, ledger)
        if self.rule.timing != "asynchronous":
            self._gatherer.late(ledger, turn.round)
        counted = self._aggregate(turn, collected, events)
        if counted and self.rule.timing != "asynchronous":
            idle = [node for node in self.crew.peers() if node not in self._gatherer.flight]
            p.latest |= self._judge.judged(idle, p.current, turn.round, ledger, wait_s=s.deadline_s)
        for node, entry in sorted(ledger.entries.items()):
            if entry.fate != "late" or node in collected.asked:  # late once, however many rounds it is
                self.crew.heard(node, entry.fate)
        self._close(turn, events, self.channel.now() - began, counted=counted)

    def _collect(self, turn: Turn) -> Collected:
        if self._seal is not None:
            return self._collector.sealed(turn, self._seal, partial(self._budgets.once_more, turn))
        if self.rule.timing == "asynchronous":
            return self._collector.as_they_come(turn)
        return self._collector.together(turn)

    def _expelled(self, collected: Collected) -> list[str]:
        """Nodes that spoilt a sealed sum are asked no more; those that only fell silent may do better in the next round."""
        told = [
            self._deployment.drop([node], f"it spoilt a sealed sum: {why}") for node, why in sorted(collected.culprits.items())
        ]
        return [words for words in told if words]

    def _aggregate(self, turn: Turn, collected: Collected, events: list[str]) -> bool:
        """The next weights, if enough updates came; whether they did.

        Raises:
            FederationError: too few came in several rounds running.
        """
        p, updates = self.progress, collected.updates
        least = self.rule.least if self.rule.timing == "asynchronous" else max(self.settings.least_owners, self.rule.least)
        if len(updates) < least:
            return self._short(turn, collected, events, least)
        if collected.total is not None and collected.like is not None:
            try:
                p.current = self._combiner.sealed(p.current, collected.total, collected.like, updates, turn.round)
            except FederationError as error:  # a sum that is none: somebody sealed what cannot be meant, and nobody can see who
                collected.why = str(error)
                return self._short(turn, collected, events, least)
        else:
            if self.observe is not None:
                self.observe(turn.round, p.current, updates)
            for owner, share in self._combiner.weights(updates).items():
                turn.ledger.of(owner).weight = share
            p.current = self._combiner.plain(p.current, updates, turn.round)
        p.examples |= {u.owner: u.examples for u in updates}
        p.short = 0
        return True

    def _short(self, turn: Turn, collected: Collected, events: list[str], least: int) -> bool:
        """A round that is not counted; always False.

        Raises:
            FederationError: it is one of several running.
        """
        p, came, of = self.progress, len(collected.updates), len(collected.asked)
        p.short += 1
        events.append(collected.why or f"{came} of {of} updates came, at least {least} are needed: not counted")
        if p.short >= _SHORT:
            raise FederationError(self._too_few(turn.ledger, came, of, least, collected.why))
        return False

    def _too_few(self, ledger: Ledger, came: int, asked: int, least: int, why: str) -> str:
        reasons = [f"{owner}: {e.fate}, {e.reason}" for owner, e in sorted(ledger.entries.items()) if e.reason][:5]
        return (
            f"'{self.task.request}' cannot go on: in {_SHORT} rounds running too few updates came, last {came} of {asked}, at least "
            f"{least} are needed ({why or '; '.join(reasons) or 'no reason is known'}); lengthen federation.deadline_s, bring more "
            "nodes, or lower federation.least_owners"
        )

    def _close(self, turn: Turn, events: list[str], seconds: float, *, counted: bool) -> None:
        """Record the round, judge it, and keep all of it."""
        p, s = self.progress, self.settings
        p.round = turn.round
        p.spend(seconds, turn.ledger.energy_j())
        if s.budget_j is not None and p.energy_j is None:
            raise FederationError(
                "federation.budget_j is set, but no owner says how much energy it spends; meter it (energy), or unset it"
            )
        judged = self._judged()
        record = self._record(turn, judged, events, seconds)
        decision = self._decide(record, judged, counted=counted)
        p.records.append(record.model_copy(update={"decision": decision, "events": tuple(events)}))
        self.costs.spent["training"].carried(turn.ledger)
        self._keep()
        if self.on_round is not None:
            self.on_round(p.records[-1])

    def _judged(self) -> Total:
        """Over all owners; of an asynchronous rule only once all have been heard of, since a few are not all."""
        p, here = self.progress, self.crew.peers()
        if self.rule.timing == "asynchronous":
            here = tuple(node for node in here if node not in self.crew.empty)  # who has nothing to train on is asked nothing
        if self.rule.timing == "asynchronous" and any(node not in p.latest for node in here):
            return Total(None, None, None, NOTHING_TOLD)
        return total(p.latest[node] for node in here if node in p.latest)

    def _record(self, turn: Turn, judged: Total, events: list[str], seconds: float) -> Round:
        up_bytes, down_bytes = turn.ledger.bytes()
        spent = most_spent(self.mechanisms)
        return Round(
            round=turn.round,
            topology=self.crew.topology.version,
            owners=turn.ledger.records(),
            validation_loss=judged.loss,
            mae=judged.mae,
            mse=judged.mse,
            precision=judged.told.precision,
            recall=judged.told.recall,
            auc=judged.told.auc,
            learning_rate=turn.local.learning_rate,
            epsilon=spent.epsilon if spent else None,
            delta=spent.delta if spent else None,
            epsilon_unit=spent.unit if spent else "",
            up_bytes=up_bytes,
            down_bytes=down_bytes,
            seconds=seconds,
            events=tuple(events),
        )

    def _decide(self, record: Round, judged: Total, *, counted: bool) -> str:
        """Keep the best, patience and target; then quality management (M.3387 9.5). Says what was decided."""
        p, words = self.progress, [self._steering.by_errors(self.progress, judged, counted=counted)]
        if self._steering.noisy:
            return words[0]
        if self.quality is not None:
            decision = self.quality.decide([*p.records, record])
            words += self._steering.follow(p, decision, self._deployment.drop)
        return "; ".join(w for w in words if w)

    # -- the end

    def _finishing(self) -> Finishing:
        parts = self.progress, self.crew, self._judge, self._deployment, self.costs
        return Finishing(self.rule, self.settings, *parts, self._first, self._covered)
