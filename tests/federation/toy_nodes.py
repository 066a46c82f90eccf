"""Nodes whose training is worked out by hand: each pulls the weights towards a point of its own. Loaded by conftest.py, and by
processes that tests start."""

import numpy as np

from cellwright.errors import Refused
from cellwright.federation import messages
from cellwright.federation.compression import codec as codec_named
from cellwright.federation.contract import Evaluation, Local, NodeState, Parcel, Task, Update, Usage
from cellwright.federation.crew import pruned  # noqa: F401 - for tests
from cellwright.federation.management.records import Edge, Topology
from cellwright.federation.privacy._contract import Mechanism
from cellwright.federation.rounds import Rounds
from cellwright.federation.sealed_sum import answered, vector

TASK = Task(
    request="req-1", dataset="toy", model="toy", options={}, problem={}, scaler="none", clip=None, loss="mse",
    train=(0, 8), validation=(8, 10), test=(10, 12), seed=7,
)  # fmt: skip


class Puller:
    """Moves the weights towards `point` by `learning_rate` of the way, each step; its loss is the squared distance.

    `remembers`: what it learnt last comes along in its next update, as with SCAFFOLD, so that its state matters.
    """

    def __init__(self, name: str, point: float, examples: int = 10, *, energy_j: float | None = 2.0, remembers: bool = False, codec="none",
                 mechanisms: tuple[Mechanism, ...] = ()) -> None:  # fmt: skip
        self.name, self.point, self.examples, self.energy_j = name, point, examples, energy_j
        self.remembers, self.codec, self.mechanisms = remembers, codec_named(codec), mechanisms
        self.seen: list[tuple[str, object]] = []  # kinds and rounds it was asked for
        self.told: list[Local] = []
        self.poison = ""  # "nan", "other", "round", "shape": what is wrong with its updates
        self.failing: set[str] = set()  # kinds that it cannot answer
        self.finite = True

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        self.seen.append((kind, parcel.values.get("round")))
        if kind in self.failing:
            raise Refused(f"{self.name} cannot {kind}")
        if kind == "deploy":
            return Parcel(values={"owner": self.name, "examples": self.examples})
        if kind == "train":
            return self._train(parcel, state)
        if kind == "evaluate":
            return self._evaluate(parcel)
        if kind.startswith("stage_"):
            return self._stage(kind.removeprefix("stage_"), parcel, state)
        return Parcel()

    def _train(self, parcel: Parcel, state: NodeState) -> Parcel:
        asked = messages.instruction_of(parcel)
        self.told.append(asked.local)
        noise = np.random.default_rng([asked.round, len(self.name), ord(self.name[-1])]).normal(0, 0.01)
        delta = {}
        for name, array in asked.arrays.items():  # private ones were not sent
            way = 1 - (1 - asked.local.learning_rate) ** asked.local.steps
            pull = way * (self.point + noise - array)
            if self.remembers:
                pull = pull + 0.25 * state.arrays.get(name, np.zeros_like(array))
            delta[name] = pull.astype(np.float32)
            if self.remembers:
                state.arrays[name] = delta[name]
        update = Update(self.name, asked.round, delta, self.examples, asked.local.steps, {"train_loss": 1.0}, self._usage())
        return self._sent(self._poisoned(update), state)

    def _poisoned(self, update: Update) -> Update:
        from dataclasses import replace

        if self.poison == "nan":
            return replace(update, delta={n: np.full_like(a, np.nan) for n, a in update.delta.items()})
        if self.poison == "other":
            return replace(update, owner="someone-else")
        if self.poison == "round":
            return replace(update, round=update.round + 1)
        if self.poison == "shape":
            return replace(update, delta={n: np.zeros(99, np.float32) for n in update.delta})
        return update

    def _sent(self, update: Update, state: NodeState) -> Parcel:
        for mechanism in self.mechanisms:
            update = Update(**{**vars(update), "delta": mechanism.protect(update.delta, np.random.default_rng(0))})
        if side := self._side(state):
            sealed = side.seal(vector(update.delta, self.examples))
            state.blobs["sealing"] = side.state()
            return messages.updated(update, {}, sealed)
        return messages.updated(update, self.codec.encode(update.delta).arrays, {})

    def _side(self, state: NodeState):
        side = next((m.owner_side(self.name, TASK.seed) for m in self.mechanisms if m.seals), None)
        if side is not None and "sealing" in state.blobs:
            side.restore(state.blobs["sealing"])
        return side

    def _stage(self, stage: str, parcel: Parcel, state: NodeState) -> Parcel:
        side = self._side(state)
        answer = answered(side, stage, dict(parcel.blobs))
        state.blobs["sealing"] = side.state()
        return messages.stage(answer, parcel.values["round"])

    def _evaluate(self, parcel: Parcel) -> Parcel:
        weights = messages.under(parcel, messages.WEIGHTS)
        point = self.point + (1.0 if parcel.values["span"] == "test" else 0.0)
        count = sum(a.size for a in weights.values())
        errors = [np.asarray(a, np.float64) - point for a in weights.values()]
        squared = float(sum((e**2).sum() for e in errors))
        absolute = float(sum(abs(e).sum() for e in errors))
        found = Evaluation(self.name, parcel.values["span"], count, absolute, squared, squared)
        return messages.evaluated(found, self._usage(), parcel.values["round"])

    def _usage(self) -> Usage:
        return Usage(0.5, 0.25, self.energy_j, "measured" if self.energy_j is not None else None)


def star(names, coordinator="cloud") -> Topology:
    edges = tuple(Edge(child=n, parent=coordinator) for n in names)
    return Topology(request=TASK.request, kind="star", coordinator=coordinator, edges=edges, owners=tuple(names))


def settings(**over) -> Rounds:
    local = Local(steps=over.pop("steps", 2), batch=1, learning_rate=over.pop("learning_rate", 0.5))
    return Rounds(**{"rounds": 4, "patience": 99, "lr_patience": None, "deadline_s": 10.0, "local": local, "seed": 7} | over)


def initial(size: int = 3) -> dict[str, np.ndarray]:
    return {"layer.weight": np.zeros((size, 2), np.float32), "layer.bias": np.zeros(size, np.float32)}
