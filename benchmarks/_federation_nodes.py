"""Nodes that train nothing, so that what is left is the federation; and rounds among any nodes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cellwright.errors import Refused
from cellwright.federation import aggregation, compression, messages
from cellwright.federation.audit.signing import Signer, verify
from cellwright.federation.contract import Arrays, Evaluation, Local, Node, NodeState, Parcel, Task, Update, Usage
from cellwright.federation.coordinator import Coordinator
from cellwright.federation.management.records import Edge, Topology
from cellwright.federation.privacy._contract import Mechanism, OwnerSide
from cellwright.federation.results import Round
from cellwright.federation.rounds import Outcome, Rounds
from cellwright.federation.runtimes.local import open_channel
from cellwright.federation.sealed_sum import answered, vector

REQUEST, CLOUD, SEED = "bench", "cloud", 7
TINY = {"weight": (3, 2), "bias": (3,)}
LARGE = {"weight_hh": (288, 96), "weight_ih": (288, 8), "bias": (48,)}  # 30,000 parameters
FORM: dict[str, Any] = {"request": REQUEST, "dataset": "bench", "options": {}, "problem": {}, "scaler": "none", "clip": None}
NOTHING = Task(**FORM, model="none", loss="mse", train=(0, 8), validation=(8, 10), test=(10, 12), seed=SEED)


def say(what: str) -> None:
    """Progress, on stderr."""
    print(what, file=sys.stderr, flush=True)


@dataclass
class Ready:
    """A node whose update is there before it is asked; it signs and seals as a data owner does."""

    name: str
    delta: Arrays
    mechanism: Mechanism | None = None
    signer: Signer | None = None
    coordinator: str = ""  # public key; "": it takes what nobody signed
    lost_at: str = ""  # kind of message that it does not answer
    sealed: np.ndarray | None = None
    _sent: int = field(default=0, repr=False)

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        """As a DataOwner, but for the training."""
        if kind == self.lost_at:
            raise Refused(f"{self.name} is gone")
        if self.coordinator:
            verify(parcel, self.coordinator)
        reply = self._reply(kind, parcel, state)
        self._sent += 1
        return self.signer.sign(reply, sender=self.name, sequence=self._sent, request=REQUEST) if self.signer else reply

    def _reply(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        if kind == "train":
            return self._update(messages.instruction_of(parcel).round, state)
        if kind == "evaluate":
            span: Any = parcel.values["span"]
            return messages.evaluated(
                Evaluation(self.name, span, 1, 1.0, 1.0, 1.0), Usage(0.0, 0.0, None, None), parcel.values.get("round")
            )
        if (side := self._side(state)) is None:
            return Parcel(values={"owner": self.name, "examples": 32})
        if not kind.startswith("stage_"):
            return Parcel(values={"owner": self.name, "examples": 32})
        answer = answered(side, kind.removeprefix("stage_"), {n: b for n, b in parcel.blobs.items() if n != "signature"})
        state.blobs["sealing"] = side.state()
        return messages.stage(answer, int(parcel.values["round"]))

    def _update(self, round_: int, state: NodeState) -> Parcel:
        delta, made = self.delta, self.mechanism
        if made is not None:
            delta = made.protect(delta, np.random.default_rng(0))
        update = Update(self.name, round_, delta, 32, 1, {"train_loss": 1.0}, Usage(0.0, 0.0, None, None))
        if (side := self._side(state)) is None:
            return messages.updated(update, delta, {})
        self.sealed = vector(delta, update.examples)
        message = side.seal(self.sealed)
        state.blobs["sealing"] = side.state()
        return messages.updated(update, {}, message)

    def _side(self, state: NodeState) -> OwnerSide | None:
        """Its part of the sealed sum, where it stood."""
        if self.mechanism is None or not self.mechanism.seals:
            return None
        side = self.mechanism.owner_side(self.name, SEED)
        if "sealing" in state.blobs:
            side.restore(state.blobs["sealing"])
        return side


def arrays(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Arrays:
    """Drawn, as an update may be."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.01, shape).astype(np.float32) for name, shape in shapes.items()}


def settings(rounds: int, batch: int = 32) -> Rounds:
    """One step a round, and no end before the last one."""
    return Rounds(rounds, Local(steps=1, batch=batch, learning_rate=1e-3), patience=rounds + 1, lr_patience=None, seed=SEED)


def topology(names: Sequence[str]) -> Topology:
    """Every node beside the coordinator."""
    edges = tuple(Edge(child=name, parent=CLOUD) for name in names)
    return Topology(request=REQUEST, kind="star", coordinator=CLOUD, edges=edges, owners=tuple(names))


@dataclass(frozen=True)
class Took:
    """How long something took; on a busy machine the CPU's time is nearer to what an idle one would need."""

    wall_s: float
    cpu_s: float  # of all threads


def rounds_of(nodes: Mapping[str, Node], first: Arrays, rounds: int, task: Task = NOTHING, **more: Any) -> tuple[Outcome, Took]:
    """A federation by FedAvg in the local runtime, and how long it took."""
    channel, codec, given = open_channel(nodes, clock="wall"), compression.codec("none"), dict(more)
    made = given.pop("rule", None) or aggregation.rule("fedavg")
    began, cpu = time.perf_counter(), time.process_time()
    given |= {"codec": codec, "topology": topology(sorted(nodes))}
    outcome = Coordinator(channel, task, made, settings(rounds), **given).run(first)
    took = Took(time.perf_counter() - began, time.process_time() - cpu)
    assert len(outcome.rounds) == rounds, f"it ended after {len(outcome.rounds)} rounds: {outcome.reason}"
    return outcome, took


def told(record: Round) -> None:
    """A round that ended."""
    counted = sum(owner.outcome == "counted" for owner in record.owners)
    say(f"  round {record.round}: {counted} of {len(record.owners)} counted, {record.seconds:.2f} s")
