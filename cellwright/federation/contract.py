"""What travels between the roles of a federation, as plain data. No Flower here, and no torch.

    FMLMS ──interface 2──> coordinator ──Parcel "train"──> data owner
                                       <──Parcel (Update)──

A node answers parcels; a channel carries them, in this process or over the network (see runtimes/). `Instruction` and `Update`
are what parcels of kind "train" mean. Everything is arrays, bytes and numbers: nothing that can carry code crosses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

Arrays = dict[str, np.ndarray]  # by name, in the network's own order; float32 unless said otherwise
Value = str | int | float | bool
Role = Literal["coordinator", "auditor", "data_owner"]
Timing = Literal["synchronous", "semi_synchronous", "asynchronous"]
Source = Literal["measured", "modelled", "constant"]


@dataclass(frozen=True)
class Parcel:
    """One message, either way."""

    arrays: Arrays = field(default_factory=dict)
    blobs: Mapping[str, bytes] = field(default_factory=dict)  # sealed vectors, keys, shares, signatures
    values: Mapping[str, Value] = field(default_factory=dict)

    def digest(self, *, without: str = "signature") -> bytes:
        """SHA-256 over names, types, shapes and contents; the blob `without` (the signature itself) does not count."""
        total = hashlib.sha256()
        for name, array in self.arrays.items():
            total.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            total.update(np.ascontiguousarray(array).data)
        for name in sorted(set(self.blobs) - {without}):
            total.update(f"{name}\0{len(self.blobs[name])}\0".encode() + self.blobs[name])
        total.update(json.dumps(dict(self.values), sort_keys=True).encode())
        return total.digest()


class Node(Protocol):
    """Who answers parcels: a data owner, an auditor, or the coordinator of a region.

    Kinds: "deploy" (task, role, topology: M.3387 interface 2), "metadata", "train", "evaluate", "finish", and the stages of a privacy
    mechanism ("stage_<name>"). What must outlive a message goes into `state`: on Flower's runtime each message is answered by a
    process of its own.
    """

    name: str

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel: ...


@dataclass
class NodeState:
    """What a node remembers from one message to the next: SCAFFOLD's variates, error feedback, a private head, keys."""

    arrays: Arrays = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What came back from one node: a parcel, or why there is none."""

    node: str
    parcel: Parcel | None
    error: str | None  # in words
    sent_bytes: int  # exact bytes of the messages on the wire, this way and back
    received_bytes: int
    seconds: float  # from sending to its arrival, by the channel's clock


class Channel(Protocol):
    """How the coordinator reaches its nodes. Time is the channel's own: wall-clock, or simulated where nodes are."""

    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that can be reached now, sorted."""
        ...

    def now(self) -> float:
        """Seconds on the channel's clock."""
        ...

    def send(self, kind: str, parcels: Mapping[str, Parcel]) -> dict[str, str]:
        """Send one parcel to each node named; returns a ticket a node. A node that is gone answers with an error."""
        ...

    def receive(self, tickets: Mapping[str, str], *, until: float, least: int | None = None) -> dict[str, Reply]:
        """Replies that have come by `until` (channel's clock), by node, sorted; returns as soon as all have, or `least` of them.

        What has not come can be asked for again, with the same ticket.
        """
        ...


class Spec(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(Spec):
    """What the owners must know to deploy the initial model (M.3387 9.1); travels as JSON."""

    request: str  # id of the service request
    dataset: str
    model: str  # a name of the zoo
    options: dict[str, object]
    problem: dict[str, object]  # models._contract.Problem; inputs "site"
    scaler: Literal["standard", "robust", "log", "none"]
    clip: float | None
    loss: Literal["mae", "mse", "huber"]
    kind: Literal["regression", "classification"] = "regression"  # M.3387 8.1.1: what its quality is measured by
    threshold: float | None = None  # of a classification: the target above it is the event; None: a site's 90 % quantile
    train: tuple[int, int]  # rows [start, stop) of each span
    validation: tuple[int, int]
    test: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class DpSgd:
    """Differentially private gradient descent at the owner: per-example gradients clipped, noise added (Abadi et al. 2016)."""

    noise_multiplier: float
    max_grad_norm: float


@dataclass(frozen=True)
class Local:
    """How an owner trains in one round."""

    steps: int  # optimiser steps; fewer for a slow node
    batch: int  # windows a step
    learning_rate: float
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: float = 0.0
    gradient_clip: float | None = 1.0
    proximal: float = 0.0  # FedProx: weight of half the squared distance to the global weights
    private: tuple[str, ...] = ()  # prefixes of parameters that never leave the owner ("blocks.head")
    frozen: tuple[str, ...] = ()  # prefixes of parameters that stay as they were sent (federated transfer learning, at first)
    dp_sgd: DpSgd | None = None
    moments: bool = False  # AdamW goes on with the moments of the owner's round before, which stay there; else it begins anew


@dataclass(frozen=True)
class Instruction:
    """Coordinator to owner: train from these weights."""

    round: int  # from 1
    arrays: Arrays  # the global weights and buffers that are learnt
    local: Local
    extra: Arrays = field(default_factory=dict)  # the rule's own (SCAFFOLD's control variate)


@dataclass(frozen=True)
class Usage:
    """What a node spent on one message."""

    seconds: float
    cpu_s: float
    energy_j: float | None
    energy_source: Source | None
    co2_g: float | None = None


@dataclass(frozen=True)
class Update:
    """Owner to coordinator: what training changed."""

    owner: str
    round: int  # whose weights it started from
    delta: Arrays  # its weights minus those it was sent; or, from a `closed_form` rule, its statistics
    examples: int  # windows it holds for training
    steps: int  # optimiser steps done
    metrics: Mapping[str, float]  # train_loss (normalised)
    usage: Usage
    extra: Arrays = field(default_factory=dict)
    staleness: int = 0  # rounds that went by since its weights were sent; set by the coordinator

    def weights(self, start: Arrays) -> Arrays:
        """The owner's own weights, where it started from `start`."""
        return {name: (start[name] + self.delta[name]).astype(start[name].dtype) for name in self.delta}

    def scaled(self, factor: float) -> Update:
        """The same with its delta times `factor`."""
        return replace(self, delta={name: (array * factor).astype(array.dtype) for name, array in self.delta.items()})


@dataclass(frozen=True)
class Evaluation:
    """How good given weights are on an owner's own span. Sums, so that they add up over owners."""

    owner: str
    span: Literal["validation", "test"]
    count: int  # measured targets
    absolute: float  # sum of |error|, raw units
    squared: float  # sum of squared error, raw units
    loss: float  # sum of the training loss, normalised
    positive: tuple[int, ...] = ()  # of a classification: how many events by bin of their score (quality/classification.py)
    negative: tuple[int, ...] = ()  # and how many of what was no event

    @property
    def mae(self) -> float | None:
        """Mean absolute error, raw units; None: nothing was measured."""
        return self.absolute / self.count if self.count else None

    @property
    def mse(self) -> float | None:
        """Mean squared error (M.3387 9.5), raw units squared."""
        return self.squared / self.count if self.count else None
