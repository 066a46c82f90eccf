"""What a coordinator is told before it starts, what it may be told between rounds, and what it hands back.

Quality management and the FMLMS steer a training at the boundaries of its rounds, through `Quality` and `Pause`; neither sees a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays, Evaluation, Local, NodeState, Parcel
from cellwright.federation.costs import Spent
from cellwright.federation.management.records import Topology
from cellwright.federation.quality.incentive import Contribution
from cellwright.federation.results import Round
from cellwright.params import Federation

Status = Literal["converged", "target", "rounds", "budget", "privacy_budget", "stopped", "paused"]


@dataclass(frozen=True)
class Rounds:
    """How a training runs (M.3387 9.3 and 9.4). Times are of the channel's clock."""

    rounds: int  # at most; of an asynchronous rule: aggregations
    local: Local
    patience: int  # rounds without a better validation loss before it stops as converged
    lr_patience: int | None  # such rounds before the learning rate is halved; None: it stays
    lr_decay: float = 1.0  # factor of the learning rate from round to round
    fraction: float = 1.0  # share of the owners asked in a round
    least_owners: int = 2  # fewest updates a round is counted with
    deadline_s: float = 600.0  # longest a round waits for its updates
    target_mse: float | None = None  # raw units squared
    budget_s: float | None = None
    budget_j: float | None = None  # of all owners
    seed: int = 0

    @classmethod
    def of(cls, params: Federation, *, seed: int, gradient_clip: float | None = 1.0) -> Rounds:
        """As `params.yaml: federation` says."""
        local = Local(
            steps=params.steps,
            batch=params.batch,
            learning_rate=params.learning_rate,
            optimizer=params.optimizer,
            weight_decay=params.weight_decay,
            moments=params.moments,
            gradient_clip=gradient_clip,
        )
        same = (
            "rounds",
            "patience",
            "lr_patience",
            "lr_decay",
            "fraction",
            "least_owners",
            "deadline_s",
            "target_mse",
            "budget_s",
            "budget_j",
        )
        return cls(local=local, seed=seed, **{name: getattr(params, name) for name in same})


@dataclass(frozen=True)
class Decision:
    """What is done about the quality of the rounds so far (M.3387 9.5)."""

    words: str = ""  # why; goes into the round's record
    stop: Status | None = None  # "target", "stopped", …
    rate_factor: float = 1.0  # on the learning rate, from the next round on
    drop: tuple[str, ...] = ()  # nodes that are asked no more
    more_rounds: int = 0  # beyond those that were allowed


class Quality(Protocol):
    """Quality management: judges after every round."""

    def decide(self, rounds: Sequence[Round]) -> Decision: ...


@dataclass(frozen=True)
class Pause:
    """What the FMLMS does between two rounds (M.3387 8.4.1, 8.5): pre-empt, cancel, or change the topology."""

    kind: Literal["pause", "cancel", "topology"]
    reason: str
    topology: Topology | None = None

    def __post_init__(self) -> None:
        if (self.kind == "topology") != (self.topology is not None):
            raise FederationError(f"a pause of kind '{self.kind}' {'needs' if self.kind == 'topology' else 'has no'} topology")


@runtime_checkable
class Stateful(Protocol):
    """A channel whose nodes live in this process: their states are kept with the checkpoint (see contract.NodeState)."""

    def states(self, nodes: Iterable[str] | None = None) -> dict[str, NodeState]: ...

    def restore(self, states: Mapping[str, NodeState]) -> None: ...


@runtime_checkable
class Guarded(Protocol):
    """A channel that turns nodes away which claim another's name."""

    def turned_away(self) -> tuple[str, ...]:
        """Who was turned away since this was asked last, in sentences."""
        ...


@dataclass(frozen=True)
class Outcome:
    """A training that ended, or paused."""

    arrays: Arrays  # of the round with the best validation loss
    own: Mapping[str, Arrays]  # what each owner starts from, where a rule ends with several models; else empty
    rounds: tuple[Round, ...]
    status: Status
    reason: str
    evaluations: Mapping[str, Evaluation]  # on the test span, by owner; of a paused training none
    topology: Topology  # the last one
    reliability: Mapping[str, float] = field(default_factory=dict)  # share of a node's messages in order and in time, ageing
    lost: Mapping[str, str] = field(default_factory=dict)  # nodes that are gone, or were dropped, and why
    deployed: Mapping[str, Parcel] = field(default_factory=dict)  # what each node answered to "deploy"
    contributions: Mapping[str, Contribution] = field(default_factory=dict)  # of each owner; empty: not measured
    spent: Mapping[str, Spent] = field(default_factory=dict)  # what each part took, by its name (costs.py)
    uncovered: Mapping[str, str] = field(default_factory=dict)  # owners whose scaler is not known, and why (covering.py)
