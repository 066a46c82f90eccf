"""Poisoned updates: what a broken or hostile data owner sends in place of what it learnt, as declared and seeded.

    label_flip   it trains on mirrored targets: lowest + highest of its training span - target
    scale        `factor` times its update (Bagdasaryan et al., How to backdoor federated learning, AISTATS 2020: model replacement)
    sign_flip    -`factor` times its update
    stale        the first update it made, again and again
    nan          its update with values in it that are no numbers

A `Poisoned` node answers as the node within but for its updates, and signs those like any other: it holds the key. What a rule has it
send beside the update (SCAFFOLD's variates) stays as it is.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from cellwright.errors import WrongUse
from cellwright.federation import messages
from cellwright.federation.compression._contract import Codec
from cellwright.federation.contract import Arrays, Instruction, Node, NodeState, Parcel, Spec, Task
from cellwright.federation.initial import task_from
from cellwright.federation.owner import DataOwner
from cellwright.federation.owner_data import OwnerData, Span
from cellwright.federation.owner_kit import OwnerKit, channelled
from cellwright.training.batches import Loaded, Pool
from cellwright.training.candidates import module_of

Kind = Literal["label_flip", "scale", "sign_flip", "stale", "nan"]
_FIRST = "fault/first/"  # arrays of the node's state: the first update that it made
_SIGNATURE = "signature"


class Poison(Spec):
    """How an owner's updates are poisoned."""

    kind: Kind
    factor: Annotated[float, Field(gt=0)] = 10.0  # of scale and sign_flip
    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the windows that are mirrored; of the values that are no numbers
    first_round: Annotated[int, Field(ge=1)] = 1  # before it the owner is honest
    seed: int = 0


def chosen(owners: Sequence[str], share: float, seed: int = 0) -> tuple[str, ...]:
    """Which owners are poisoned: at most `share` of them, drawn by `seed`, sorted."""
    count = int(share * len(owners) + 1e-9)
    return tuple(sorted(np.random.default_rng(seed).permutation(sorted(owners))[:count].tolist()))


def altered(delta: Arrays, poison: Poison, *, owner: str, round_: int, first: Arrays) -> Arrays:
    """What `owner` sends in place of its update `delta`; `first`: the first that it made.

    Mirrored targets poison what is trained on, not what is sent: there the update stays as it is.
    """
    if round_ < poison.first_round or poison.kind == "label_flip":
        return delta
    if poison.kind == "stale":
        return first
    if poison.kind == "nan":
        return _holed(delta, poison.share, _rng(poison, owner, round_))
    factor = poison.factor if poison.kind == "scale" else -poison.factor
    return {name: np.asarray(array * factor, array.dtype) for name, array in delta.items()}


def mislabelled(windows: int, poison: Poison, *, owner: str) -> np.ndarray:
    """Which of an owner's windows have a mirrored target, (windows,) bool; the same in every round."""
    return _rng(poison, owner, 0).random(windows) < poison.share


class Poisoned:
    """A node whose updates are poisoned as declared. Targets are mirrored at a data owner only: others have none."""

    def __init__(self, node: Node, poison: Poison) -> None:
        """Wrap `node`.

        Raises:
            WrongUse: targets are to be mirrored where there are none.
        """
        self.name, self.node, self.poison = node.name, node, poison
        self._kit = node.kit if isinstance(node, DataOwner) else OwnerKit()
        self._mirroring: Node = node
        if poison.kind == "label_flip":
            if not isinstance(node, DataOwner):
                raise WrongUse(f"'{node.name}' holds no targets that could be mirrored; wrap the DataOwner itself")
            self._mirroring = _Mirroring(node, poison)

    @property
    def public_key(self) -> str:
        """Of the node within, hex; "": it does not sign."""
        return self._kit.signer.public if self._kit.signer else ""

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        """As the node within; to "train", poisoned."""
        if kind != "train":
            return self.node.answer(kind, parcel, state)
        instruction = messages.instruction_of(parcel)
        if instruction.round < self.poison.first_round:
            return self.node.answer(kind, parcel, state)
        reply = self._mirroring.answer(kind, parcel, state)
        return reply if self.poison.kind == "label_flip" else self._altered(reply, instruction, state)

    def _altered(self, reply: Parcel, instruction: Instruction, state: NodeState) -> Parcel:
        """The reply with another update in it.

        Raises:
            WrongUse: the update is sealed.
        """
        encoded = messages.under(reply, messages.DELTA)
        if not encoded and set(reply.blobs) - {_SIGNATURE}:
            raise WrongUse(
                f"the update of '{self.name}' is sealed, and cannot be altered any more; leave out the mechanism that seals"
            )
        codec = self._codec(state)
        private = instruction.local.private
        like = {name: array for name, array in instruction.arrays.items() if not name.startswith(private)}
        delta = codec.decode(encoded, like) if codec else encoded
        for name, array in delta.items():
            state.arrays.setdefault(_FIRST + name, array.copy())
        first = {name: state.arrays[_FIRST + name] for name in delta}
        sent = altered(delta, self.poison, owner=self.name, round_=instruction.round, first=first)
        arrays = messages.prefixed(codec.encode(sent).arrays if codec else sent, messages.DELTA)
        rest = {name: array for name, array in reply.arrays.items() if not name.startswith(messages.DELTA)}
        return self._signed(replace(reply, arrays={**arrays, **rest}))

    def _codec(self, state: NodeState) -> Codec | None:
        """How the update travels; None: as it is, as statistics do."""
        task = state.blobs.get("task")
        if task is not None and module_of(task_from(task).model).Network.closed_form:
            return None
        return channelled(self.name, self._kit, state.blobs).codec

    def _signed(self, parcel: Parcel) -> Parcel:
        """Signed anew, where it was."""
        signer, v = self._kit.signer, parcel.values
        if signer is None or _SIGNATURE not in parcel.blobs:
            return parcel
        return signer.sign(parcel, sender=self.name, sequence=int(v["sequence"]), request=str(v["request"]))


class _Mirroring(DataOwner):
    """A data owner some of whose training targets are mirrored."""

    def __init__(self, owner: DataOwner, poison: Poison) -> None:
        super().__init__(owner.name, owner.folder, owner.kit)
        self._poison = poison

    def _data(self, task: Task) -> OwnerData:
        data = super()._data(task)
        if data.empty:
            return data
        mirrored, span = copy.copy(data), data.training
        pool = _MirroredPool(
            span.pool.windows, span.pool.origins, _ends(data), mislabelled(len(span.pool), self._poison, owner=self.name)
        )
        mirrored.training = Span(pool, span.index)
        return mirrored


@dataclass(frozen=True)
class _MirroredPool(Pool):
    ends: torch.Tensor  # (sites, targets): lowest + highest of the training span, raw units
    hit: np.ndarray  # (windows,) bool

    def load(self, index: np.ndarray) -> Loaded:
        loaded = super().load(index)
        hit = torch.from_numpy(self.hit[index])[:, None, None, None]
        return loaded._replace(target=torch.where(hit, self.ends[loaded.site][:, None, None] - loaded.target, loaded.target))


def _ends(data: OwnerData) -> torch.Tensor:
    """Lowest + highest measured value of each site and target in the training rows, (sites, targets) float32."""
    rows, ends = slice(*data.task.train), []
    for target in data.problem.targets:
        good = data.panel.good(target)[rows]
        low, high = (
            fold(np.where(good, data.panel.values(target)[rows], far), axis=0)
            for fold, far in ((np.min, np.inf), (np.max, -np.inf))
        )
        ends.append(np.where(good.any(axis=0), low + high, 0.0))
    return torch.from_numpy(np.stack(ends, axis=1).astype(np.float32))


def _rng(poison: Poison, owner: str, round_: int) -> np.random.Generator:
    return np.random.default_rng([poison.seed, int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4]), round_])


def _holed(delta: Arrays, share: float, rng: np.random.Generator) -> Arrays:
    """With a drawn share of the values not a number, the first of each array always."""
    out = {}
    for name, array in delta.items():
        flat = array.flatten()
        flat[rng.random(flat.size) < share] = np.nan
        flat[:1] = np.nan
        out[name] = flat.reshape(array.shape)
    return out
