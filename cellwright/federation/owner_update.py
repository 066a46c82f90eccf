"""An owner's update, from local training to what leaves: protected, then encoded or sealed (M.3387 9.4, 10.5).

What lasts from one round to the next is in the owner's state: private parameters, SCAFFOLD's variate, AdamW's moments, what a codec lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cellwright.errors import CellwrightError, Refused
from cellwright.federation import messages
from cellwright.federation.contract import Arrays, Instruction, NodeState, Parcel, Task, Update, Usage
from cellwright.federation.owner_data import OwnerData
from cellwright.federation.owner_kit import Channelled
from cellwright.federation.sealed_sum import sealing, vector

if TYPE_CHECKING:
    from cellwright.federation.privacy._contract import OwnerSide
    from cellwright.federation.shared_network import SharedNetwork

PRIVATE, VARIATE, MOMENTS, LOST = "private/", "variate/", "moments/", "lost/"  # arrays of the state
AGAIN = "again"  # value of a deployment: a coordinator that goes on deploys a task that may be there already
_BEFORE, _ROUND = "before/", "round"  # what the arrays were when the newest round began, and which that was

_NOTHING = Usage(0.0, 0.0, None, None)  # until the reply is made


def begin(state: NodeState, round_: int) -> None:
    """A round that is asked for again, since its coordinator was killed in it, is answered from the state that it began with."""
    if state.blobs.get(_ROUND) == str(round_).encode():
        arrays = kept(state, _BEFORE)
    else:
        arrays = {name: array for name, array in state.arrays.items() if not name.startswith(_BEFORE)}
    state.arrays.clear()
    state.arrays.update({**arrays, **{_BEFORE + name: array for name, array in arrays.items()}})
    state.blobs[_ROUND] = str(round_).encode()


def trained(shared: SharedNetwork, data: OwnerData, instruction: Instruction, state: NodeState, noise_seed: int | None) -> Update:
    """An owner's update; of one without data, of no windows and no change.

    Raises:
        Refused: as `local_training.train`.
    """
    from cellwright.federation.local_training import CORRECTION, train

    private = instruction.local.private
    start = own_weights(shared, instruction.arrays, state, private)
    if data.empty:
        delta = {name: np.zeros_like(array) for name, array in start.items() if not name.startswith(private)}
        return Update(data.owner, instruction.round, delta, 0, 0, {}, _NOTHING)
    done = train(
        shared, data, instruction, start, variate=kept(state, VARIATE), moments=kept(state, MOMENTS), noise_seed=noise_seed
    )
    keep(state, PRIVATE, {name: array for name, array in done.arrays.items() if name.startswith(private)})
    keep(state, VARIATE, done.variate)
    keep(state, MOMENTS, done.moments)
    return Update(
        owner=data.owner,
        round=instruction.round,
        delta={name: array - start[name] for name, array in done.arrays.items() if not name.startswith(private)},
        examples=len(data.training),
        steps=done.steps,
        metrics={"train_loss": done.loss},
        usage=_NOTHING,
        extra={CORRECTION + name: array for name, array in done.correction.items()},
    )


def own_weights(shared: SharedNetwork, sent: Arrays, state: NodeState, private: tuple[str, ...] = ()) -> Arrays:
    """The weights that were sent, the owner's private ones over them; what is private and was never trained is as at first."""
    if shared.closed_form:
        return sent
    first = {name: array for name, array in shared.first.items() if name.startswith(private) and name not in sent}
    return {**sent, **first, **kept(state, PRIVATE)}


def statistics(shared: SharedNetwork, data: OwnerData, instruction: Instruction) -> Update:
    """What an owner of a closed form sends: its sums, or what it fitted on its own windows.

    Raises:
        Refused: it cannot be fitted on these windows.
    """
    from cellwright.federation.aggregation._closed_form import statistics as of

    if data.empty:
        return Update(data.owner, instruction.round, {}, 0, 0, {}, _NOTHING)
    with shared.lock:
        shared.network.eval()
        try:
            sums = of(shared.network, data.batches(shared.network), seed=data.task.seed)
        except (CellwrightError, ValueError) as error:
            raise Refused(f"{data.owner}: {error}") from None
        finally:
            shared.reset()
    return Update(data.owner, instruction.round, sums, len(data.training), 1, {}, _NOTHING)


def leaving(
    update: Update, channelled: Channelled, side: OwnerSide | None, state: NodeState, task: Task, usage: Callable[[], Usage]
) -> Parcel:
    """The update as it may leave its owner. `side`: the owner's part of a sealed sum, where the task seals.

    Raises:
        Refused: the rule asks for arrays beside the update, and a mechanism would not cover them.
    """
    if channelled.changes and update.extra:
        raise Refused(
            f"{update.owner}: the rule asks for '{min(update.extra)}' beside the update, which the privacy mechanism does not cover; "
            "choose another rule, or none of local_dp, secure_aggregation and ckks"
        )
    rng = np.random.default_rng([task.seed & 0xFFFF_FFFF, 12, _number(update.owner), update.round])
    for mechanism in channelled.mechanisms:
        update = replace(update, delta=mechanism.protect(update.delta, rng))
    if side is not None:
        alike = any(m.equal_weights for m in channelled.mechanisms)
        sealed = side.seal(vector(update.delta, min(1, update.examples) if alike else update.examples))
        return messages.updated(replace(update, usage=usage()), {}, sealed)
    encoded = channelled.codec.encode(_fed_back(update.delta, channelled, state))
    keep(state, LOST, encoded.lost if channelled.codec.feedback else {})
    return messages.updated(replace(update, usage=usage()), encoded.arrays, {})


def _fed_back(delta: Arrays, channelled: Channelled, state: NodeState) -> Arrays:
    """What the codec lost of the rounds before comes along (error feedback)."""
    lost = kept(state, LOST) if channelled.codec.feedback else {}
    return {name: array + lost[name] if name in lost else array for name, array in delta.items()}


def plain(update: Update, channelled: Channelled, usage: Callable[[], Usage]) -> Parcel:
    """The statistics of a closed form, as they are: no codec rounds them.

    Raises:
        Refused: the task asks for a mechanism, which does not know them.
    """
    if channelled.mechanisms:
        titles = ", ".join(m.title for m in channelled.mechanisms)
        raise Refused(
            f"{update.owner}: {titles} cannot protect the statistics of a closed form; federate a network by gradient descent"
        )
    return messages.updated(replace(update, usage=usage()), update.delta, {})


def kept(state: NodeState, prefix: str) -> Arrays:
    """What the state keeps under a prefix."""
    return {name.removeprefix(prefix): array for name, array in state.arrays.items() if name.startswith(prefix)}


def keep(state: NodeState, prefix: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep these under a prefix, and nothing else."""
    for name in [name for name in state.arrays if name.startswith(prefix)]:
        del state.arrays[name]
    state.arrays.update({prefix + name: array for name, array in arrays.items()})


def sealing_side(channelled: Channelled, owner: str, seed: int) -> OwnerSide | None:
    """A new owner's part of the sealed sum; None: nothing is sealed."""
    mechanism = sealing(channelled.mechanisms)
    return None if mechanism is None else mechanism.owner_side(owner, seed)


def _number(owner: str) -> int:
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4])
