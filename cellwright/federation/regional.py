"""The coordinator of a region: for the cloud one node among others, for its owners their coordinator (M.3387 Appendix I, step 5).

It answers "train" by a few rounds of its own with its members, and replies with one update that counts with the windows of all who took
part; and "evaluate" with the sums over its members. So the cloud's coordinator needs nothing special for a hierarchy.

Liu et al., "Client-edge-cloud hierarchical federated learning", IEEE ICC 2020.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast, get_args

import numpy as np

from cellwright.errors import CellwrightError, FederationError, Refused
from cellwright.federation import messages
from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import by_examples
from cellwright.federation.aggregation._sums import moved
from cellwright.federation.collecting import Collected, Collector, Turn
from cellwright.federation.combining import Combiner
from cellwright.federation.compression._contract import Codec
from cellwright.federation.contract import Arrays, Channel, Evaluation, Instruction, Local, NodeState, Parcel, Task, Update, Value
from cellwright.federation.crew import Crew, pruned, views
from cellwright.federation.gathering import Gatherer
from cellwright.federation.judging import Judge, Span
from cellwright.federation.ledger import Ledger
from cellwright.federation.management.records import Edge, Topology
from cellwright.federation.pacing import Pacing
from cellwright.federation.post import Post
from cellwright.federation.privacy._contract import Mechanism
from cellwright.federation.quality.classification import added
from cellwright.federation.results import OwnerRound
from cellwright.federation.rounds import Rounds, Stateful
from cellwright.federation.sealed_sum import sealing

if TYPE_CHECKING:
    from cellwright.federation.audit.auditor import Auditor
    from cellwright.federation.audit.signing import Signer

_TASK, _TOPOLOGY, _ATTEMPT, _SEEN = "task", "topology", "attempt", "seen"  # blobs of the state
_PASSED_ON = ("privacy", "compression", "share_scalers", "again")  # of a deployment, to the members
_TABLES = ("scaler/center", "scaler/scale")  # arrays that members tell when they deploy, a row a site
_MEMBER, _LOST = "member/", "lost/"  # prefixes of the state: what members of this process remember, what a codec lost
_NO_TRAINING = Local(steps=0, batch=1, learning_rate=0.0)


class Mean(_contract.Rule):
    """FedAvg of a region."""

    title = "Regional FedAvg"

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        return moved(current, self.checked(updates), by_examples(updates))


@dataclass
class _Region:
    """What is at work while one message is answered."""

    crew: Crew
    post: Post
    judge: Judge
    gatherer: Gatherer
    collector: Collector
    ledger: Ledger = field(default_factory=Ledger)


class RegionalCoordinator:
    """A node that coordinates others."""

    def __init__(
        self,
        name: str,
        channel: Channel,
        *,
        codec: Codec,
        rounds: int = 1,
        least_owners: int = 1,
        deadline_s: float = 600.0,
        mechanisms: Sequence[Mechanism] = (),
        signer: Signer | None = None,
        coordinator_key: bytes | str | None = None,
        auditor: Auditor | None = None,
        seed: int = 0,
        speeds: Mapping[str, float] | None = None,
        on_round: Callable[[int, Sequence[OwnerRound]], None] | None = None,
    ) -> None:
        """`rounds`: with its members for one of the cloud's; `deadline_s`: of one of them; `coordinator_key`: the cloud's, Ed25519.

        `speeds`: seconds a training step takes each member, as far as the FMLMS knows. `on_round`: told the cloud's round and what
        became of each member in it, which the cloud does not see.
        """
        self.name, self.channel, self.codec, self.rounds = name, channel, codec, rounds
        self.mechanisms, self.signer, self.auditor, self.coordinator_key = tuple(mechanisms), signer, auditor, coordinator_key
        self._least, self._deadline_s, self._seed = least_owners, deadline_s, seed
        self._rule, self._pacing = Mean(None), Pacing.reported(speeds or {})
        self._on_round = on_round
        self._combiner = Combiner(self._rule, self.mechanisms, seed)
        self._seal = sealing(self.mechanisms)

    @property
    def public_key(self) -> str:
        """Ed25519, hex; "": it does not sign."""
        return self.signer.public if self.signer else ""

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        """Answer one message of the cloud's coordinator.

        Raises:
            Refused: it breaks a rule, or nothing is deployed here.
            FederationError: too few of the members answered.
        """
        handlers = {"deploy": self._deploy, "train": self._train, "evaluate": self._evaluate, "finish": self._finish}
        if kind not in handlers:
            raise Refused(f"the coordinator of a region does not answer '{kind[:40]}'; it answers {', '.join(handlers)}")
        task = self._task(kind, parcel, state)
        self._check_sender(kind, parcel, state, task.request)
        _recall(self.channel, state)
        region = self._region(kind, parcel, state, task)
        reply = handlers[kind](parcel, state, region)
        _memorise(self.channel, state)
        return self._signed(kind, reply, region, task.request)

    def _task(self, kind: str, parcel: Parcel, state: NodeState) -> Task:
        if kind == "deploy":
            return messages.task_of(parcel)
        if _TASK not in state.blobs:
            raise Refused(f"{self.name}: no task is deployed here; send 'deploy' before '{kind}'")
        return Task.model_validate_json(state.blobs[_TASK])

    def _check_sender(self, kind: str, parcel: Parcel, state: NodeState, request: str) -> None:
        if self.coordinator_key is None:
            return
        from cellwright.federation.audit.replay import OVERTAKEN, Taken
        from cellwright.federation.audit.signing import verify

        verify(parcel, self.coordinator_key)
        taken = Taken.read(json.loads(state.blobs.get(_SEEN, b"-1")))
        taken.take(parcel.values, request=request, kind=kind, ordered=kind not in OVERTAKEN)
        state.blobs[_SEEN] = json.dumps(taken.kept()).encode()

    def _signed(self, kind: str, reply: Parcel, region: _Region, request: str) -> Parcel:
        """Sequences of what it sends up and down are one row, so each is above all before."""
        if self.signer is None:
            return reply
        region.post.sequence += 1
        return self.signer.sign(reply, sender=self.name, sequence=region.post.sequence, request=request, kind=kind)

    def _region(self, kind: str, parcel: Parcel, state: NodeState, task: Task) -> _Region:
        topology = self._topology(kind, parcel, state, task)
        attempt = int(state.blobs.get(_ATTEMPT, b"0")) + 1
        state.blobs[_ATTEMPT] = str(attempt).encode()
        reachable = self.channel.nodes()
        crew = Crew.of(topology, reachable)
        crew.notice(reachable, pruned(topology))
        crew.check(self._least)
        post = Post(
            self.channel, sender=self.name, request=task.request, signer=self.signer, auditor=self.auditor, attempt=attempt
        )
        gatherer = Gatherer(post, self._rule, self.codec, self.mechanisms, self._pacing)
        settings = Rounds(
            rounds=self.rounds,
            local=messages.instruction_of(parcel).local if kind == "train" else _NO_TRAINING,
            patience=1,
            lr_patience=None,
            least_owners=self._least,
            deadline_s=self._deadline_s,
            seed=self._seed,
        )
        judge = Judge(post, self._rule)
        return _Region(crew, post, judge, gatherer, Collector(gatherer, judge, crew, settings))

    def _topology(self, kind: str, parcel: Parcel, state: NodeState, task: Task) -> Topology:
        """Its own star: the members that the cloud's topology gives it, or all that it reaches."""
        if kind != "deploy":
            return Topology.model_validate_json(state.blobs[_TOPOLOGY])
        told = str(parcel.values.get("topology", ""))
        members = Topology.model_validate_json(told).regions.get(self.name, ()) if told else self.channel.nodes()
        if not members:
            raise Refused(f"{self.name}: the topology gives this region no data owner")
        edges = tuple(Edge(child=member, parent=self.name) for member in members)
        return Topology(request=task.request, kind="star", coordinator=self.name, edges=edges, owners=tuple(members))

    def _deploy(self, parcel: Parcel, state: NodeState, region: _Region) -> Parcel:
        """Pass the task on; the answer speaks for all members that took it."""
        self._check_counted(str(parcel.values.get("privacy", "{}")))
        task, topology = str(parcel.values["task"]), region.crew.topology
        base: dict[str, Value] = {"task": task, **{n: parcel.values[n] for n in _PASSED_ON if n in parcel.values}}
        seen = views(topology)
        parcels = {
            member: Parcel(values={**base, "role": "data_owner", "topology": seen[member].model_dump_json()})
            for member in region.crew.peers()
        }
        answers = region.post.ask("deploy", parcels, region.ledger, round_=0, wait_s=self._deadline_s)
        why = {**answers.refused, **answers.failed}
        if len(answers.parcels) < self._least:
            raise FederationError(
                f"{self.name}: {len(answers.parcels)} of {len(parcels)} members took the task, at least {self._least} are needed"
                f" ({'; '.join(f'{node}: {reason}' for node, reason in sorted(why.items())[:5])})"
            )
        kept = pruned(topology)(topology, frozenset(set(parcels) - set(answers.parcels)), "the task could not be deployed there")
        state.blobs |= {_TASK: task.encode(), _TOPOLOGY: kept.model_dump_json().encode()}
        return _deployed(self.name, answers.parcels)

    def _check_counted(self, privacy: str) -> None:
        """The cloud states ε, and counts one round with the windows of whole regions.

        Raises:
            Refused: it would state too little.
        """
        from cellwright.federation.privacy import mechanism

        try:
            told = [mechanism(name, options) for name, options in json.loads(privacy).items()]
        except (AttributeError, TypeError, ValueError, CellwrightError) as error:
            raise Refused(f"{self.name}: the privacy mechanisms that are deployed cannot be meant: {error}") from None
        counted = [m for m in (*told, *self.mechanisms) if m.spent is not None]
        if counted and self.rounds > 1:
            raise Refused(
                f"{self.name}: {counted[0].title} is counted once for {self.rounds} rounds within the region; use one regional round"
            )
        if by_windows := [m for m in counted if type(m).local is not Mechanism.local]:
            raise Refused(
                f"{self.name}: {by_windows[0].title} is counted by the windows of single owners, which a region sums; use a star"
            )

    def _train(self, parcel: Parcel, state: NodeState, region: _Region) -> Parcel:
        """A few rounds with the members, as one update."""
        asked, began = messages.instruction_of(parcel), self.channel.now()
        if asked.extra:
            raise Refused(
                f"{self.name}: a region averages its members' updates; the rule sends arrays of its own beside the weights"
            )
        current, heard = asked.arrays, dict[str, Update]()
        for number in range(self.rounds):
            turn = Turn((asked.round - 1) * self.rounds + number + 1, current, asked.local, self._deadline_s, region.ledger, {})
            collected = self._collected(turn, region)
            current = self._combined(current, collected, turn)
            heard |= {u.owner: u for u in collected.updates}
        if self._on_round is not None:
            self._on_round(asked.round, region.ledger.records())
        return self._sent(self._update(asked, current, heard, region, began), state)

    def _collected(self, turn: Turn, region: _Region) -> Collected:
        collector = region.collector
        collected = collector.together(turn) if self._seal is None else collector.sealed(turn, self._seal)
        region.gatherer.late(turn.ledger, turn.round)
        if len(collected.updates) < self._least:
            raise FederationError(
                f"{self.name}: {len(collected.updates)} of {len(collected.asked)} updates came in a regional round, at least "
                f"{self._least} are needed {collected.why}".rstrip()
            )
        return collected

    def _combined(self, current: Arrays, collected: Collected, turn: Turn) -> Arrays:
        if collected.total is not None and collected.like is not None:
            return self._combiner.sealed(current, collected.total, collected.like, collected.updates, turn.round)
        return self._combiner.plain(current, collected.updates, turn.round)

    def _update(self, asked: Instruction, current: Arrays, heard: Mapping[str, Update], region: _Region, began: float) -> Update:
        told = [heard[owner] for owner in sorted(heard)]
        up_bytes, down_bytes = region.ledger.bytes()
        losses = [(u.metrics["train_loss"], u.examples) for u in told if "train_loss" in u.metrics and u.examples]
        loss = {"train_loss": sum(x * n for x, n in losses) / sum(n for _, n in losses)} if losses else {}
        return Update(
            owner=self.name,
            round=asked.round,
            delta={name: current[name] - array for name, array in asked.arrays.items()},
            examples=sum(u.examples for u in told),
            steps=max(u.steps for u in told),
            metrics={**loss, "members": float(len(told)), "up_bytes": float(up_bytes), "down_bytes": float(down_bytes)},
            usage=region.ledger.usage(self.channel.now() - began),
        )

    def _sent(self, update: Update, state: NodeState) -> Parcel:
        """Encoded like an owner's, with error feedback where the codec has it."""
        lost = {n.removeprefix(_LOST): a for n, a in state.arrays.items() if n.startswith(_LOST)} if self.codec.feedback else {}
        encoded = self.codec.encode({name: array + lost[name] if name in lost else array for name, array in update.delta.items()})
        for name in [n for n in state.arrays if n.startswith(_LOST)]:
            del state.arrays[name]
        if self.codec.feedback:
            state.arrays |= {_LOST + name: array for name, array in encoded.lost.items()}
        return messages.updated(update, encoded.arrays, {})

    def _evaluate(self, parcel: Parcel, state: NodeState, region: _Region) -> Parcel:
        """The members' sums."""
        began, span = self.channel.now(), parcel.values.get("span")
        if span not in get_args(Span):
            raise Refused(
                f"{self.name}: it is asked to evaluate on '{str(span)[:40]}'; the spans are {' and '.join(get_args(Span))}"
            )
        round_, weights = int(parcel.values.get("round", 0)), messages.under(parcel, messages.WEIGHTS)
        found = region.judge.judged(
            region.crew.peers(), weights, round_, region.ledger, wait_s=self._deadline_s, span=cast(Span, span)
        )
        summed = _summed(self.name, cast(Span, span), tuple(found.values()))
        return messages.evaluated(summed, region.ledger.usage(self.channel.now() - began), parcel.values.get("round"))

    def _finish(self, parcel: Parcel, state: NodeState, region: _Region) -> Parcel:
        """Let the members go, and forget the task."""
        parcels = dict.fromkeys(region.crew.peers(), Parcel())
        region.post.ask("finish", parcels, region.ledger, round_=0, wait_s=self._deadline_s)
        state.arrays.clear()
        for name in set(state.blobs) - {_ATTEMPT, _SEEN}:
            del state.blobs[name]
        return Parcel(values={"owner": self.name})


def _summed(region: str, span: Span, evaluations: Sequence[Evaluation]) -> Evaluation:
    """The evaluations of members as one; counts by bin, of a classification, add up as well."""
    absolute, squared, loss = (math.fsum(getattr(e, name) for e in evaluations) for name in ("absolute", "squared", "loss"))
    positive, negative = added([e.positive for e in evaluations]), added([e.negative for e in evaluations])
    return Evaluation(region, span, sum(e.count for e in evaluations), absolute, squared, loss, positive, negative)


def _deployed(region: str, answers: Mapping[str, Parcel]) -> Parcel:
    """What members said when they took the task, as one: windows, the slowest step, sites, and scalers if all told theirs."""
    told = [answers[member] for member in sorted(answers)]
    values: dict[str, Value] = {
        "owner": region,
        "examples": sum(int(p.values.get("examples", 0)) for p in told),
        "members": len(told),
    }
    if all("sites" in p.values for p in told):
        values["sites"] = json.dumps([site for p in told for site in json.loads(str(p.values["sites"]))])
    paces = [float(p.values["seconds_per_step"]) for p in told if "seconds_per_step" in p.values]
    if paces:
        values["seconds_per_step"] = max(paces)
    tables = {name: np.concatenate([p.arrays[name] for p in told]) for name in _TABLES if all(name in p.arrays for p in told)}
    return Parcel(arrays=tables, values=values)


def _recall(channel: Channel, state: NodeState) -> None:
    """Members of this process remember what the region's own state says: so a region is as resumable as an owner."""
    states: dict[str, NodeState] = {}
    for name, array in state.arrays.items():
        if name.startswith(_MEMBER):
            node, inner = json.loads(name.removeprefix(_MEMBER))
            states.setdefault(node, NodeState()).arrays[inner] = array
    for name, blob in state.blobs.items():
        if name.startswith(_MEMBER):
            node, inner = json.loads(name.removeprefix(_MEMBER))
            states.setdefault(node, NodeState()).blobs[inner] = blob
    if states and isinstance(channel, Stateful):
        channel.restore(states)


def _memorise(channel: Channel, state: NodeState) -> None:
    """Keep what members of this process remember."""
    for kept in (state.arrays, state.blobs):
        for name in [n for n in kept if n.startswith(_MEMBER)]:
            del kept[name]
    for node, own in (channel.states() if isinstance(channel, Stateful) else {}).items():
        state.arrays |= {_MEMBER + json.dumps([node, name]): array for name, array in own.arrays.items()}
        state.blobs |= {_MEMBER + json.dumps([node, name]): blob for name, blob in own.blobs.items()}
