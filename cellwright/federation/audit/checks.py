"""The auditor's checks, one a function: each takes a message and the rules, and raises Refused if it breaks one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cellwright.errors import Refused
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.contract import Arrays, Evaluation, Parcel, Update, Usage
from cellwright.federation.messages import DELTA, EXTRA, evaluation_of, under, update_of

_LONGEST_TEXT = 2**20  # characters of one value
_MOST_NAMES = 100_000
_LARGEST_NUMBER = 2**63


@dataclass
class Message:
    """One message while it is checked."""

    kind: str
    node: str
    parcel: Parcel
    round: int  # that the coordinator is in
    update: Update | None = None  # once `schema` has read it
    usage: Usage | None = None
    norm: float | None = None  # once `finite` has passed: Euclidean, of the decoded update

    @cached_property
    def digest(self) -> bytes:
        """The parcel's."""
        return self.parcel.digest()

    @cached_property
    def payload_bytes(self) -> int:
        """Its arrays and blobs."""
        return sum(a.nbytes for a in self.parcel.arrays.values()) + sum(len(b) for b in self.parcel.blobs.values())


def size(message: Message, rules: Rules) -> None:
    """Before anything is read: nothing larger than a message can be."""
    if message.payload_bytes > rules.max_bytes:
        raise Refused(f"{message.payload_bytes} bytes, at most {rules.max_bytes} allowed (max_bytes)")
    parcel = message.parcel
    if len(parcel.arrays) + len(parcel.blobs) + len(parcel.values) > _MOST_NAMES:
        raise Refused(f"more than {_MOST_NAMES} arrays, blobs and values in one message")
    if any(isinstance(value, str) and len(value) > _LONGEST_TEXT for value in parcel.values.values()):
        raise Refused(f"a text of more than {_LONGEST_TEXT} characters among its values")


def fresh(message: Message, rules: Rules) -> None:
    """An update or a judgement is of this round, or at most `max_staleness` rounds older."""
    told = message.parcel.values.get("round")
    if told is None and message.kind not in ("train", "evaluate"):
        return
    if not isinstance(told, int) or isinstance(told, bool):
        raise Refused(f"the message must tell its round as a whole number, found {str(told)[:40]!r}")
    if not message.round - rules.max_staleness <= told <= message.round:
        oldest = f"{message.round - rules.max_staleness} to " if rules.max_staleness else ""
        raise Refused(f"it is of round {told}, expected {oldest}{message.round} (max_staleness)")


def schema(message: Message, form: Form) -> None:
    """Values and arrays are those of its kind, and its sender speaks for itself."""
    parcel = message.parcel
    if message.kind == "train":
        message.update = update_of(parcel, _decoded(parcel, form))
        message.usage = message.update.usage
        _speaks_for_itself(message, message.update.owner)
        _plain(message.update)
    elif message.kind == "evaluate":
        evaluation, message.usage = evaluation_of(parcel)
        _speaks_for_itself(message, evaluation.owner)
        _no_arrays(parcel, "an evaluation")
        _possible(evaluation)
    else:
        _floats(parcel.arrays)
        _speaks_for_itself(message, str(parcel.values.get("owner", message.node)))


def numbers(message: Message) -> None:
    """No NaN, no infinity and nothing absurdly large among the values, before they are computed with."""
    for name, value in message.parcel.values.items():
        if isinstance(value, int | float) and not abs(value) < _LARGEST_NUMBER:
            raise Refused(f"value '{name[:80]}' must be finite and below 2⁶³")


def finite(message: Message) -> None:
    """No NaN and no infinity in the arrays. Takes the update's norm on the way."""
    update = message.update
    delta, others = (update.delta, update.extra) if update else ({}, message.parcel.arrays)
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large to be squared counts as infinite
        squared = sum(_squared(name, array) for name, array in delta.items())
        for name, array in others.items():
            _squared(name, array)
    message.norm = math.sqrt(squared) if delta else None


def norm(message: Message, rules: Rules, median: float | None) -> None:
    """An update is not far larger than allowed, or than the others of its round. `median`: None where there are too few."""
    if message.norm is None:
        return
    if rules.max_norm is not None and message.norm > rules.max_norm:
        raise Refused(f"its norm is {message.norm:.4g}, at most {rules.max_norm:.4g} allowed (max_norm)")
    if rules.norm_ratio is not None and median and message.norm > rules.norm_ratio * median:
        raise Refused(
            f"its norm is {message.norm:.4g}, {message.norm / median:.3g} times the median of the round; at most "
            f"{rules.norm_ratio:g} times is allowed (norm_ratio)"
        )


def budget(message: Message, rules: Rules, spent_bytes: int, spent_j: float) -> None:
    """What it says it spent is possible, and within the budget with what the node spent before."""
    if message.update and rules.max_steps is not None and message.update.steps > rules.max_steps:
        raise Refused(f"it says {message.update.steps} steps, {rules.max_steps} were asked at most (max_steps)")
    total = spent_bytes + message.payload_bytes
    if rules.budget_bytes is not None and total > rules.budget_bytes:
        raise Refused(f"the node has sent {total} bytes with this message, {rules.budget_bytes} are its budget (budget_bytes)")
    energy_j = spent_j + ((message.usage.energy_j or 0.0) if message.usage else 0.0)
    if rules.budget_j is not None and energy_j > rules.budget_j:
        raise Refused(f"the node has spent {energy_j:.4g} J with this round, {rules.budget_j:.4g} J are its budget (budget_j)")


def examples(message: Message, rules: Rules, deployed: int | None) -> None:
    """An owner does not suddenly hold far more or fewer windows: they are its weight in the aggregate."""
    if message.update is None or deployed is None:
        return
    told, most = message.update.examples, deployed * (1 + rules.examples_change)
    if not deployed / (1 + rules.examples_change) <= told <= most:
        raise Refused(f"it says it holds {told} windows, {deployed} were deployed (examples_change {rules.examples_change:g})")


def _decoded(parcel: Parcel, form: Form) -> Arrays:
    strange = [name for name in parcel.arrays if not name.startswith((DELTA, EXTRA))]
    if strange:
        raise Refused(f"an update holds no array '{strange[0][:80]}'")
    _extra(under(parcel, EXTRA), form)
    sent = under(parcel, DELTA)
    if form.sealed:
        if sent:
            raise Refused("an update in the clear, where only sealed ones are taken; the node runs without the mechanism")
        return {}
    if form.codec is not None:
        return form.codec.decode(sent, form.like) if form.like is not None else _numeric(sent)
    return _numeric(sent) if form.like is None else _like(sent, form.like)


def _extra(sent: Arrays, form: Form) -> None:
    if form.extra is None:
        _floats(sent)
    else:
        _like(sent, form.extra)


def _like(sent: Arrays, like: Arrays) -> Arrays:
    if set(sent) != set(like):
        other = min(set(sent) ^ set(like))
        raise Refused(
            f"an update of other arrays than expected: '{other[:80]}' is {'missing' if other in like else 'not one of them'}"
        )
    for name, array in sent.items():
        if array.shape != like[name].shape or array.dtype != like[name].dtype:
            found = f"{array.dtype.name} {array.shape}"
            raise Refused(f"'{name}': expected {like[name].dtype.name} {like[name].shape}, found {found}")
    return sent


def _floats(sent: Arrays) -> Arrays:
    for name, array in sent.items():
        if array.dtype not in (np.float32, np.float64):
            raise Refused(f"'{name[:80]}': expected float32 or float64, found {array.dtype.name}")
    return sent


def _numeric(sent: Arrays) -> Arrays:
    """Statistics of a closed form may count and refer (a forest's columns) as well as measure."""
    for name, array in sent.items():
        if array.dtype not in (np.float32, np.float64, np.int16, np.int32, np.int64):
            raise Refused(f"'{name[:80]}': expected float32, float64 or whole numbers, found {array.dtype.name}")
    return sent


def _plain(update: Update) -> None:
    if update.examples < 0 or update.steps < 0:
        raise Refused(f"it says {update.examples} windows and {update.steps} steps; neither can be negative")
    told = update.usage
    if min(told.seconds, told.cpu_s, told.energy_j or 0.0, told.co2_g or 0.0) < 0:
        raise Refused("it says it spent less than nothing (usage)")


def _possible(evaluation: Evaluation) -> None:
    if evaluation.count < 0 or evaluation.absolute < 0 or evaluation.squared < 0:
        raise Refused("an evaluation's count and sums of errors cannot be negative")


def _speaks_for_itself(message: Message, owner: str) -> None:
    if owner != message.node:
        raise Refused(f"it came from '{message.node}' and speaks for '{owner[:80]}'")


def _no_arrays(parcel: Parcel, what: str) -> None:
    if parcel.arrays:
        raise Refused(f"{what} holds no arrays, found '{next(iter(parcel.arrays))[:80]}'")


def _squared(name: str, array: np.ndarray) -> float:
    """Sum of squares; refuses what is not finite."""
    array = array if array.dtype.kind == "f" else array.astype(np.float64)
    total = float(np.vdot(array, array))
    if not math.isfinite(total):  # a value is not, or its square is too large for the array's own type
        total = float(np.square(array, dtype=np.float64).sum())
    if not math.isfinite(total):
        raise Refused(f"array '{name[:80]}' holds values that are not finite")
    return total
