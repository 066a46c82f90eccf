"""Parcels of the kinds that every federation uses: what Instruction, Update and Evaluation look like on their way.

Names within a parcel: arrays `w/<parameter>` weights, `d/<parameter>` an update (as the codec left it), `x/<name>` the rule's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cellwright.errors import Refused
from cellwright.federation.contract import Arrays, DpSgd, Evaluation, Instruction, Local, Parcel, Task, Update, Usage, Value
from cellwright.federation.quality.classification import BINS

WEIGHTS, DELTA, EXTRA = "w/", "d/", "x/"
_UNREADABLE = (KeyError, TypeError, ValueError, OverflowError, RecursionError)  # what reading a value of any sort can end in
_MOST_COUNTED = 2**48  # of one bin, so that int64 holds the sum over all owners


def prefixed(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays under a prefix."""
    return {prefix + name: array for name, array in arrays.items()}


def under(parcel: Parcel, prefix: str) -> Arrays:
    """What a parcel holds under a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in parcel.arrays.items() if name.startswith(prefix)}


def deploy(task: Task, **values: Value) -> Parcel:
    """The task as it is deployed; `values`: what else the node must know (role, topology, mechanisms as JSON)."""
    return Parcel(values={"task": task.model_dump_json(), **values})


def task_of(parcel: Parcel) -> Task:
    """The task of a "deploy" parcel.

    Raises:
        Refused: there is none, or it is of another form.
    """
    try:
        return Task.model_validate_json(str(parcel.values["task"]))
    except (KeyError, ValueError) as error:
        raise Refused(f"the message deploys no task that can be read ({error}); both sides must run the same version") from None


def train(instruction: Instruction) -> Parcel:
    """An instruction as a "train" parcel."""
    return Parcel(
        arrays={**prefixed(instruction.arrays, WEIGHTS), **prefixed(instruction.extra, EXTRA)},
        values={"round": instruction.round, "local": json.dumps(asdict(instruction.local), sort_keys=True)},
    )


def instruction_of(parcel: Parcel) -> Instruction:
    """The instruction of a "train" parcel.

    Raises:
        Refused: it is of another form.
    """
    try:
        local = json.loads(str(parcel.values["local"]))
        dp = local.pop("dp_sgd")
        private, frozen = tuple(local.pop("private")), tuple(local.pop("frozen", ()))
        return Instruction(
            round=int(parcel.values["round"]),
            arrays=under(parcel, WEIGHTS),
            local=Local(**local, private=private, frozen=frozen, dp_sgd=DpSgd(**dp) if dp else None),
            extra=under(parcel, EXTRA),
        )
    except _UNREADABLE as error:
        raise Refused(f"the message holds no instruction that can be read: {type(error).__name__}: {error}") from None


def updated(update: Update, encoded: Arrays, sealed: Mapping[str, bytes]) -> Parcel:
    """An update as the reply to "train": its delta as the codec left it, or sealed."""
    return Parcel(
        arrays={**prefixed(encoded, DELTA), **prefixed(update.extra, EXTRA)},
        blobs=dict(sealed),
        values={
            "owner": update.owner,
            "round": update.round,
            "examples": update.examples,
            "steps": update.steps,
            **{f"metric/{name}": float(value) for name, value in update.metrics.items()},
            **usage_values(update.usage),
        },
    )


def update_of(parcel: Parcel, delta: Arrays) -> Update:
    """The update of a reply to "train"; `delta` as the codec decoded it.

    Raises:
        Refused: the reply is of another form.
    """
    v = parcel.values
    try:
        return Update(
            owner=str(v["owner"]),
            round=int(v["round"]),
            delta=delta,
            examples=int(v["examples"]),
            steps=int(v["steps"]),
            metrics={name.removeprefix("metric/"): float(value) for name, value in v.items() if name.startswith("metric/")},
            usage=usage_of(v),
            extra=under(parcel, EXTRA),
        )
    except _UNREADABLE as error:
        raise Refused(f"the reply holds no update that can be read: {type(error).__name__}: {error}") from None


def evaluate(arrays: Arrays, span: str, round_: int) -> Parcel:
    """Ask an owner how good weights are on its validation or test span."""
    return Parcel(arrays=prefixed(arrays, WEIGHTS), values={"span": span, "round": round_})


def stage(message: Mapping[str, bytes], round_: int) -> Parcel:
    """What one stage of a sealed sum asks of an owner, and what it answers: parcels of kind "stage_<name>", either way."""
    return Parcel(blobs=dict(message), values={"round": round_})


def evaluated(evaluation: Evaluation, usage: Usage, round_: Value | None) -> Parcel:
    """The reply to "evaluate"; `round_`: as the question told it."""
    counts = {"positive": json.dumps(evaluation.positive), "negative": json.dumps(evaluation.negative)}
    told = {} if round_ is None else {"round": round_}
    return Parcel(values={**vars(evaluation), **counts, **told, **usage_values(usage)})


def evaluation_of(parcel: Parcel) -> tuple[Evaluation, Usage]:
    """What a reply to "evaluate" says.

    Raises:
        Refused: it is of another form.
    """
    v: Mapping[str, Any] = parcel.values
    try:
        absolute, squared, loss = (float(v[name]) for name in ("absolute", "squared", "loss"))
        positive, negative = (_counts(v.get(name, "[]")) for name in ("positive", "negative"))
        found = Evaluation(str(v["owner"]), v["span"], int(v["count"]), absolute, squared, loss, positive, negative)
        return found, usage_of(v)
    except _UNREADABLE as error:
        raise Refused(f"the reply holds no evaluation that can be read: {type(error).__name__}: {error}") from None


def _counts(told: str) -> tuple[int, ...]:
    """Counts by bin of an evaluation; none: it is not of a classification."""
    counts = tuple(int(count) for count in json.loads(told))
    if len(counts) not in (0, BINS) or not all(0 <= count <= _MOST_COUNTED for count in counts):
        raise ValueError(f"counts must be {BINS} or none, each 0 to 2^48")
    return counts


def usage_values(usage: Usage) -> dict[str, Value]:
    """A usage as values of a reply; what is not known stays out: absent is not 0."""
    return {f"usage/{name}": value for name, value in vars(usage).items() if value is not None}


def told_usage(parcel: Parcel) -> Usage | None:
    """What an answer to any kind of message says it took; None: it says nothing, or nothing that can be read."""
    try:
        return usage_of(parcel.values)
    except _UNREADABLE:
        return None


def usage_of(values: Mapping[str, Any]) -> Usage:
    """The usage that a reply's values tell."""
    energy, carbon = values.get("usage/energy_j"), values.get("usage/co2_g")
    return Usage(
        seconds=float(values["usage/seconds"]),
        cpu_s=float(values["usage/cpu_s"]),
        energy_j=None if energy is None else float(energy),
        energy_source=values.get("usage/energy_source"),
        co2_g=None if carbon is None else float(carbon),
    )
