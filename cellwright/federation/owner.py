"""The data owner: deploys a task on its own panel, trains and evaluates there, and sends what may leave (M.3387 8.2, 9.1, 9.4, 10.4).

    kind           the coordinator sends                 the owner answers
    deploy         the task, mechanisms and codec        windows and sites it has, seconds a step, its scaler (if it may leave)
    train          weights, how to train                 an update: protected, then encoded or sealed
    evaluate       weights, a span                       sums of errors
    stage_<name>   a stage of a sealed sum               its answer
    metadata       nothing                               what it says of its data (data/metadata.py)
    finish         nothing                               nothing; it forgets the task

No array of a reply is made of raw data but the scaler's, and that only where the task shares scalers. What must last from one message to
the next is in `NodeState`, so that another process can answer the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from cellwright.errors import Refused
from cellwright.federation import messages
from cellwright.federation.contract import Arrays, Evaluation, NodeState, Parcel, Task, Value
from cellwright.federation.initial import CENTER, SCALE, problem_of, task_from
from cellwright.federation.node_meter import NodeMeter
from cellwright.federation.owner_data import OwnerData, forget, owner_data
from cellwright.federation.owner_kit import COMPRESSION, PRIVACY, SHARES, Channelled, OwnerKit, channelled
from cellwright.federation.owner_update import AGAIN, begin, leaving, own_weights, plain, sealing_side, statistics, trained
from cellwright.federation.sealed_sum import answered
from cellwright.federation.signed import SEEN, SENT, check_sender, signed_reply
from cellwright.panel import Panel

if TYPE_CHECKING:
    from cellwright.federation.privacy._contract import OwnerSide
    from cellwright.federation.shared_network import SharedNetwork

__all__ = ["DataOwner", "OwnerKit"]

STAGE = "stage_"
Span = Literal["validation", "test"]
_TASK, _SEALING = "task", "sealing"  # blobs of the state, beside those of the kit and of `signed`
_SIGNATURE = "signature"


class DataOwner:
    """One data owner; any process that is given its name, folder and kit can speak for it."""

    def __init__(self, name: str, panel_folder: Path, kit: OwnerKit) -> None:
        self.name, self.folder, self.kit = name, panel_folder, kit
        self._meter = NodeMeter(kit.energy)

    @property
    def public_key(self) -> str:
        """Ed25519, hex; "": it does not sign."""
        return self.kit.signer.public if self.kit.signer else ""

    def vouch(self, challenge: str) -> str:
        """A signature (hex) over this owner's name and a coordinator's challenge: that nobody else answers under its name; "": none."""
        return self.kit.signer.vouch(self.name, challenge) if self.kit.signer else ""

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        """Answer one message; see the table above.

        Raises:
            Refused: the message breaks a rule, or the task wants what the data do not have; nothing of it was taken.
            CellwrightError: the panel cannot be read.
        """
        handlers: dict[str, Callable[[Parcel, NodeState], Parcel]] = {
            "deploy": self._deploy,
            "train": self._train,
            "evaluate": self._evaluate,
            "metadata": self._metadata,
            "finish": self._finish,
        }
        handler = partial(self._stage, kind.removeprefix(STAGE)) if kind.startswith(STAGE) else handlers.get(kind)
        if handler is None:
            raise Refused(f"a data owner does not answer '{kind[:40]}'; it answers {', '.join(handlers)} and {STAGE}<name>")
        request = self._request(kind, parcel, state)
        if self.kit.request is not None and request != self.kit.request:  # what was seen of it is kept elsewhere
            raise Refused(f"{self.name}: the message is of request '{request[:64]}', this run of '{self.kit.request[:64]}'")
        check_sender(self.kit, kind, parcel, state, request)
        return signed_reply(self.kit, self.name, kind, handler(parcel, state), state, request)

    def _request(self, kind: str, parcel: Parcel, state: NodeState) -> str:
        """The request that the message must be of; metadata may be asked for by any."""
        if kind == "deploy":
            return messages.task_of(parcel).request
        if kind == "metadata":
            return str(parcel.values.get("request", ""))
        if _TASK not in state.blobs:
            raise Refused(f"{self.name}: no task is deployed here; send 'deploy' before '{kind}'")
        return task_from(state.blobs[_TASK]).request

    def _deploy(self, parcel: Parcel, state: NodeState) -> Parcel:
        """Hold the task against the data, and keep it; what was kept of a task before goes, unless it is the same one again."""
        mark, content = self._meter.mark(), str(parcel.values["task"]).encode()
        told = {name: str(parcel.values[name]).encode() for name in (PRIVACY, COMPRESSION) if name in parcel.values}
        channelled(self.name, self.kit, told)
        data = self._data(task_from(content))
        examples = 0 if data.empty else len(data.training)  # also whether any window fits, before a network is built for them
        shared = _shared(content)
        known = {**told, _TASK: content}
        again = parcel.values.get(AGAIN) is True and all(state.blobs.get(name) == blob for name, blob in known.items())
        if not again:
            seen = {name: state.blobs[name] for name in (SEEN, SENT) if name in state.blobs}
            state.arrays.clear()
            state.blobs.clear()
            state.blobs.update({**seen, **known})
        values: dict[str, Value] = {
            "owner": self.name,
            "examples": examples,
            "empty": data.empty,
            "sites": json.dumps(data.sites),
        }
        if not data.empty and not shared.closed_form:
            values["seconds_per_step"] = shared.seconds_per_step(data)
        arrays = _scaler(data) if parcel.values.get(SHARES) is True and not data.empty else {}
        return Parcel(arrays=arrays, values={**values, **messages.usage_values(self._meter.usage(mark))})

    def _train(self, parcel: Parcel, state: NodeState) -> Parcel:
        """Train, protect, then encode or seal."""
        mark, ways = self._meter.mark(), self._ways(state)
        instruction = ways.kept_to(messages.instruction_of(parcel))
        task, shared = task_from(state.blobs[_TASK]), _shared(state.blobs[_TASK])
        data, spent = self._data(task), partial(self._meter.usage, mark)
        if shared.closed_form:
            return plain(statistics(shared, data, instruction), ways, spent)
        begin(state, instruction.round)
        update = trained(shared, data, instruction, state, self.kit.noise_seed)
        side = self._side(ways, state, task)
        reply = leaving(update, ways, side, state, task, spent)
        if side is not None:
            state.blobs[_SEALING] = side.state()
        return reply

    def _evaluate(self, parcel: Parcel, state: NodeState) -> Parcel:
        """Errors of the weights sent, the owner's private ones over them, on its own span."""
        from cellwright.federation.local_evaluation import evaluate

        mark, span = self._meter.mark(), self._span(parcel)
        data, shared = self._data(task_from(state.blobs[_TASK])), _shared(state.blobs[_TASK])
        if data.empty:
            found = Evaluation(self.name, span, 0, 0.0, 0.0, 0.0)
        else:
            weights = own_weights(shared, messages.under(parcel, messages.WEIGHTS), state)
            found = evaluate(shared, data, weights, span)
        return messages.evaluated(found, self._meter.usage(mark), parcel.values.get("round"))

    def _span(self, parcel: Parcel) -> Span:
        asked = parcel.values.get("span")
        if asked not in get_args(Span):
            raise Refused(f"{self.name}: it is asked to evaluate on '{str(asked)[:40]}'; the spans are validation and test")
        return cast(Span, asked)

    def _stage(self, stage: str, parcel: Parcel, state: NodeState) -> Parcel:
        """One stage of a sealed sum."""
        ways, task = self._ways(state), task_from(state.blobs[_TASK])
        side = self._side(ways, state, task)
        if side is None:
            raise Refused(f"{self.name}: it is asked for the stage '{stage[:40]}', but no mechanism that seals is deployed here")
        round_ = parcel.values.get("round")
        if not isinstance(round_, int):
            raise Refused(f"{self.name}: the stage '{stage[:40]}' does not say of which round it is")
        message = {name: blob for name, blob in parcel.blobs.items() if name != _SIGNATURE}
        answer = answered(side, stage, message)
        state.blobs[_SEALING] = side.state()
        return messages.stage(answer, round_)

    def _metadata(self, parcel: Parcel, state: NodeState) -> Parcel:
        """What the owner says of its data (M.3387 10.1); a new version only where the data changed, if it keeps a book.

        Raises:
            Refused: it would draw noise anew for everyone who asks, which adds up to no noise.
        """
        from cellwright.federation.data.metadata import describe, parcel_of

        panel, kit = Panel.open(self.folder), self.kit
        if kit.book is not None:
            return parcel_of(kit.book.update(panel, self.name, kit.disclosure))
        if kit.disclosure.quantiles == "noisy":
            raise Refused(
                f"{self.name}: noisy quantiles are told once a version, which a sealed book must keep; give the owner one"
            )
        return parcel_of(describe(panel, self.name, kit.disclosure))

    def _finish(self, parcel: Parcel, state: NodeState) -> Parcel:
        """Forget the task; what was seen and sent stays, so that nothing can be replayed."""
        forget(self.name, self.folder, task_from(state.blobs[_TASK]))
        state.arrays.clear()
        for name in set(state.blobs) - {SEEN, SENT}:
            del state.blobs[name]
        return Parcel(values={"owner": self.name})

    def _data(self, task: Task) -> OwnerData:
        strange = [spec for spec in problem_of(task).exogenous if spec not in self.kit.exogenous]
        if strange:
            raise Refused(
                f"{self.name}: the task would have it read the file '{strange[0][:80]}', which this owner does not allow"
            )
        return owner_data(self.name, self.folder, task)

    def _ways(self, state: NodeState) -> Channelled:
        return channelled(self.name, self.kit, state.blobs)

    def _side(self, ways: Channelled, state: NodeState, task: Task) -> OwnerSide | None:
        """The owner's part of the sealed sum, where it stood."""
        side = sealing_side(ways, self.name, task.seed)
        if side is None:
            return None
        if _SEALING in state.blobs:
            side.restore(state.blobs[_SEALING])
        if self.kit.signer is not None and self.kit.peers:
            side.bind(self.kit.signer.sign_bytes, self._by_peer)
        return side

    def _by_peer(self, owner: str, content: bytes, signature: bytes) -> bool:
        """Whether another owner signed it; nobody else's word is taken for its key."""
        from cellwright.federation.audit.signing import verified

        key = self.public_key if owner == self.name else self.kit.peers.get(owner)
        return key is not None and verified(signature, content, key)


def _scaler(data: OwnerData) -> Arrays:
    return {CENTER: data.scaler.center, SCALE: data.scaler.scale}


def _shared(task: bytes) -> SharedNetwork:
    from cellwright.federation.shared_network import shared_network

    return shared_network(task)
