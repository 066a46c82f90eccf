"""Sealed sums: the coordinator learns the owners' sum, and no owner's update (M.3387 10.5).

An owner seals one vector: its update's values in the order of their names, as float64, times its number of training windows; and that
number itself as the last element. The sum over owners, divided by its last element, is FedAvg's average.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from cellwright.errors import FederationError, Refused, Spoilt
from cellwright.federation import messages
from cellwright.federation.aggregation._contract import Rule
from cellwright.federation.contract import Arrays, Parcel, Update, Usage
from cellwright.federation.ledger import Ledger
from cellwright.federation.post import Answers
from cellwright.federation.privacy._contract import CoordinatorSide, Mechanism, OwnerSide

SUM = "sum"  # owner of the one update that a sealed sum is
_NOT_SEALED = "signature"
_ACCUSES = "accuses"  # blob of an answer to a stage: whose message the owner could not go on with
_STAGES_SHARE = 0.5  # of a round's deadline, for all stages together


class Ask(Protocol):
    """Sends parcels of a kind, and waits for the answers."""

    def __call__(self, kind: str, parcels: Mapping[str, Parcel], *, wait_s: float) -> Answers: ...


def sealing(mechanisms: Iterable[Mechanism]) -> Mechanism | None:
    """The mechanism that seals, if there is one.

    Raises:
        FederationError: there are two.
    """
    found = [m for m in mechanisms if m.seals]
    if len(found) > 1:
        names = " and ".join(m.title for m in found)
        raise FederationError(f"{names} both seal the sum; choose one of them in federation.privacy")
    return found[0] if found else None


def averages(rule: Rule) -> bool:
    """Whether a rule needs no more than the owners' average update."""
    return rule.linear and not rule.closed_form and not rule.regional and rule.least <= 1


def check_rule(rule: Rule, mechanism: Mechanism, known: Iterable[str]) -> None:
    """Whether a rule can work with sums alone; `known`: names of those that can.

    Raises:
        FederationError: it needs each owner's update, or does not wait for its owners together.
    """
    if averages(rule) and rule.timing == "synchronous":
        return
    why = "needs each owner's update" if not rule.linear else "is no synchronous average of updates"
    raise FederationError(
        f"{rule.title} {why}, but {mechanism.title} leaves the coordinator only their sum; "
        f"choose one of {', '.join(known)}, or another mechanism"
    )


def vector(delta: Arrays, weight: float) -> np.ndarray:
    """What an owner seals, (values + 1,) float64."""
    parts = [np.asarray(delta[name], np.float64).ravel() * weight for name in sorted(delta)]
    return np.concatenate([*parts, [float(weight)]])


def length(like: Arrays) -> int:
    """Elements of a sealed vector for updates like these."""
    return sum(array.size for array in like.values()) + 1


def averaged(total: np.ndarray, like: Arrays) -> tuple[Arrays, float]:
    """The average update in the names, shapes and order of `like`, float32, and the sum of weights.

    Raises:
        FederationError: the sum of weights is not above 0, or a value is not finite.
    """
    weight = float(total[-1])
    if total.shape != (length(like),) or not np.isfinite(total).all() or weight <= 0:
        raise FederationError(
            f"the sealed sum of {total.size - 1} values over a weight of {weight:g} is none: no window was trained on"
        )
    parts, at = {}, 0
    for name in sorted(like):
        size = like[name].size
        parts[name] = (total[at : at + size] / weight).reshape(like[name].shape).astype(np.float32)
        at += size
    return {name: parts[name] for name in like}, weight


class SealedRound:
    """One round of a sealed sum; an owner that drops out at any stage is left out, down to the mechanism's threshold."""

    def __init__(
        self, mechanism: Mechanism, owners: tuple[str, ...], round_: int, seed: int, deadline_s: float, ask: Ask
    ) -> None:
        self.mechanism, self.round, self._ask = mechanism, round_, ask
        self.side: CoordinatorSide = mechanism.coordinator_side(owners, seed)
        self._all = self.owners = owners  # still there
        self.gone: dict[str, str] = {}  # who did not answer a stage, and why
        self.accused: dict[str, set[str]] = {}  # by whom
        stages = len(mechanism.before) + len(mechanism.after)
        self.stages_share = _STAGES_SHARE if stages else 0.0  # of the deadline; the rest is for the updates
        self._stage_s = deadline_s * self.stages_share / max(1, stages)

    def before(self) -> tuple[str, ...]:
        """Agree on keys and the like; returns the owners that can be asked for updates."""
        for stage in self.mechanism.before:
            self._stage(stage)
        return self.owners

    def unfit(self, sealed: Mapping[str, Parcel], like: Arrays) -> dict[str, str]:
        """Owners whose sealed vector cannot be one, and why; they count as gone, like those whose vector never came."""
        found = {}
        for owner, parcel in sealed.items():
            try:
                self.side.check(owner, _message(parcel), length(like))
            except Refused as refusal:
                found[owner] = str(refusal)
        return found

    def after(self, sealed: Mapping[str, Parcel], like: Arrays) -> np.ndarray:
        """The sum of the sealed vectors that came, (values + 1,) float64."""
        self.side.collect({owner: _message(parcel) for owner, parcel in sealed.items()}, length(like))
        self.owners = tuple(sorted(sealed))
        for stage in self.mechanism.after:
            self._stage(stage)
        return self.side.total()

    def _stage(self, stage: str) -> None:
        asked = self.side.ask(stage, self.owners)
        parcels = {owner: messages.stage(message, self.round) for owner, message in sorted(asked.items())}
        answers = self._ask(f"stage_{stage}", parcels, wait_s=self._stage_s)
        replies = {owner: _message(parcel) for owner, parcel in answers.parcels.items()}
        self.gone |= {owner: f"it did not answer '{stage}' in time" for owner in parcels if owner not in replies}
        self.gone |= {**answers.refused, **answers.failed}
        for owner in [owner for owner, reply in replies.items() if _ACCUSES in reply]:
            self.accused.setdefault(replies.pop(owner)[_ACCUSES].decode(errors="replace"), set()).add(owner)
        self.side.take(stage, replies)
        self.owners = tuple(sorted(replies))

    def culprits(self, error: FederationError) -> dict[str, str]:
        """Who spoilt this round, which ended in `error`, and how: what they sent cannot be meant, or others could not go on with it.

        An owner that more than a third of all accuse is one: where fewer are dishonest, as the mechanisms demand, one of its accusers is
        honest. If there is none such, those are that most accuse, at least two.
        """
        found = {**self.side.left_out, **(error.nodes if isinstance(error, Spoilt) else {})}
        accused = {node: len(by) for node, by in self.accused.items() if node in self._all}
        least = len(self._all) // 3 + 1
        if accused and max(accused.values()) < least:
            least = max(2, *accused.values())
        return found | {
            node: f"{count} of {len(self._all)} owners could not go on with what it sent"
            for node, count in accused.items()
            if count >= least
        }


def answered(side: OwnerSide, stage: str, message: Mapping[str, bytes]) -> dict[str, bytes]:
    """An owner's answer to a stage; where it cannot go on with what another owner sent, that one's name."""
    try:
        return side.answer(stage, message)
    except Spoilt as found:
        return {_ACCUSES: next(iter(found.nodes)).encode()}


def _message(parcel: Parcel) -> dict[str, bytes]:
    return {name: blob for name, blob in parcel.blobs.items() if name != _NOT_SEALED}


def summed(average: Arrays, weight: float, updates: Iterable[Update], round_: int) -> Update:
    """The average as the one update that a rule sees; `updates`: what the owners said beside their sealed vectors."""
    told = list(updates)
    losses = [(u.metrics["train_loss"], u.examples) for u in told if "train_loss" in u.metrics and u.examples]
    metrics = {"train_loss": sum(x * n for x, n in losses) / sum(n for _, n in losses)} if losses else {}
    return Update(SUM, round_, average, round(weight), max((u.steps for u in told), default=0), metrics, spent(told))


def spent(updates: Iterable[Update]) -> Usage:
    """What several owners spent together."""
    ledger, seconds = Ledger(), 0.0
    for update in updates:
        ledger.of(update.owner).spend(update.usage)
        seconds = max(seconds, update.usage.seconds)
    return ledger.usage(seconds)
