"""What every privacy mechanism keeps to.

A mechanism acts at one or more of these places, in this order within a round:

    owner's gradient    local(local)                               DP-SGD
    owner's update      protect(delta, rng)                        local DP: clip and noise
    sealed sum          owner_side(…) / coordinator_side(…)        secure aggregation, CKKS: the coordinator learns the sum alone
    coordinator         finish(average, owners, rng)               central DP: noise on the average

Several can be used together (`federation.privacy: [dp_sgd, secure_aggregation]`); at most one of them seals.

`rng` gives reproducible noise, and only where the mechanism's option `seeded_noise` asks for it: everybody knows the seed of a
federation, so noise that is drawn from it hides nothing. Without the option, noise comes from the operating system's entropy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from cellwright.errors import Refused, Spoilt
from cellwright.federation.contract import Arrays, Local
from models._contract import Options, option

__all__ = ["CoordinatorSide", "Mechanism", "Options", "OwnerSide", "Participation", "Spent", "dataclass", "option"]

Message = Mapping[str, bytes]
Sign = Callable[[bytes], bytes]
Verify = Callable[[str, bytes, bytes], bool]  # owner, what was signed, signature


@dataclass(frozen=True)
class Participation:
    """What one round asked of the owners' data; what an accountant needs to know."""

    round: int
    owners: int  # that took part
    of: int  # that could have
    steps: int  # most local steps of one of them
    batch: int
    examples: int  # fewest windows of one of them


@dataclass(frozen=True)
class Spent:
    """Privacy budget spent since the first round."""

    epsilon: float
    delta: float
    unit: str  # whose data: "an owner", "a window"


@contextmanager
def blaming(node: str) -> Iterator[None]:
    """What is refused here is this node's doing."""
    try:
        yield
    except Spoilt:
        raise
    except Refused as error:
        raise Spoilt(str(error), {node: str(error)}) from None


class OwnerSide(ABC):
    """One owner's part of a sealed sum; `state` and `restore` carry it from message to message (no pickle)."""

    sign: Sign | None = None
    verify: Verify | None = None

    def bind(self, sign: Sign, verify: Verify) -> None:
        """Sign the keys that this owner advertises, and check those of the others; unbound, keys are taken as they are passed on."""
        self.sign, self.verify = sign, verify

    @abstractmethod
    def answer(self, stage: str, message: Message) -> dict[str, bytes]:
        """Answer a stage that comes before or after the update."""

    @abstractmethod
    def seal(self, vector: np.ndarray) -> dict[str, bytes]:
        """Seal a float64 vector so that only the sum over owners can be read."""

    @abstractmethod
    def state(self) -> bytes: ...

    @abstractmethod
    def restore(self, state: bytes) -> None: ...


class CoordinatorSide(ABC):
    """The coordinator's part of a sealed sum, anew for every round."""

    left_out: Mapping[str, str] = MappingProxyType({})  # owners that answered what cannot be meant, and what

    @abstractmethod
    def ask(self, stage: str, owners: tuple[str, ...]) -> dict[str, dict[str, bytes]]:
        """What each owner is asked in a stage; `owners` are those still there."""

    @abstractmethod
    def take(self, stage: str, replies: Mapping[str, Message]) -> None:
        """What came back. Owners that did not answer are left out from here on.

        Raises:
            FederationError: fewer are left than the threshold. Spoilt: and it is known whose doing that is.
        """

    def check(self, owner: str, message: Message, length: int) -> None:  # noqa: B027 - by default `collect` sees it
        """Whether a sealed vector can be one of `length` values; before `collect`, so that one owner cannot spoil the round of all.

        Raises:
            Refused: it cannot.
        """

    @abstractmethod
    def collect(self, sealed: Mapping[str, Message], length: int) -> None:
        """The sealed vectors of the owners whose update came."""

    @abstractmethod
    def total(self) -> np.ndarray:
        """The sum of the vectors of those whose update came, (length,) float64; after the last stage."""


class Mechanism(ABC):
    """One way to keep the owners' data private. Options beside it, in the same file."""

    title: ClassVar[str]
    paper: ClassVar[str] = ""
    threat: ClassVar[str]  # against whom, in one sentence
    leaves: ClassVar[str]  # what it does not protect, in one sentence
    seals: ClassVar[bool] = False
    before: ClassVar[tuple[str, ...]] = ()  # stages of a sealed sum before the updates
    after: ClassVar[tuple[str, ...]] = ()  # and after them
    equal_weights: ClassVar[bool] = False  # every owner must count the same in the average, or the noise is too small

    def __init__(self, options: Any) -> None:
        self.options = options

    def local(self, local: Local) -> Local:
        """How owners train under it."""
        return local

    def protect(self, delta: Arrays, rng: np.random.Generator) -> Arrays:
        """An owner's update as it may leave the owner."""
        return delta

    def bounded(self, delta: Arrays) -> Arrays:
        """An update as the coordinator counts it (clipped, for central DP)."""
        return delta

    def finish(self, average: Arrays, owners: int, rng: np.random.Generator) -> Arrays:
        """The averaged update as it may be published."""
        return average

    def account(self, done: Participation) -> None:  # noqa: B027 - by default nothing is counted
        """Count one round."""

    def account_again(self, done: Participation) -> None:  # noqa: B027 - by default nothing is counted
        """Count a round that its coordinator was killed in, and that is done anew: both may have been seen."""

    @property
    def spent(self) -> Spent | None:
        """Budget spent so far; None: it does not count one."""
        return None

    @property
    def exhausted(self) -> bool:
        """Whether another round like the last would go over the budget."""
        return False

    def fits(self, planned: Participation) -> bool:
        """Whether a round of that kind stays within the budget; to be asked before the first round, too."""
        return not self.exhausted

    def owner_side(self, owner: str, seed: int) -> OwnerSide:
        """Only where `seals`."""
        raise TypeError(f"{self.title} does not seal sums")

    def coordinator_side(self, owners: tuple[str, ...], seed: int) -> CoordinatorSide:
        """Only where `seals`."""
        raise TypeError(f"{self.title} does not seal sums")

    def state(self) -> bytes:
        """For a checkpoint; by default nothing."""
        return b""

    def restore(self, state: bytes) -> None:  # noqa: B027 - nothing to take back by default
        """Take back what `state` gave."""
