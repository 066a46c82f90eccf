"""Where a node keeps its state from one message to the next."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Stored
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from cellwright.errors import FederationError
from cellwright.federation.contract import NodeState, Parcel
from cellwright.federation.data.at_rest import AtRest, Storage
from cellwright.federation.runtimes import wire
from cellwright.files import explained

STORAGE_KEY = "storage.key"  # in the node's folder: what its states are sealed with (AES-256-GCM, M.3387 10.2)


class Memory(Protocol):
    """`context` is Flower's: of the run, and of the node."""

    def held(self, context: Any) -> AbstractContextManager[None]:
        """From `load` to `save` nobody else reads or writes it."""
        ...

    def load(self, context: Any) -> NodeState:
        """What was saved last; empty at first."""
        ...

    def save(self, context: Any, state: NodeState) -> None:
        """Keep it until the next message."""
        ...


class ContextMemory:
    """In Flower's own Context, which lives as long as the node's process."""

    def held(self, context: Any) -> AbstractContextManager[None]:
        """See Memory; a Context is one message's."""
        return nullcontext()

    def load(self, context: Any) -> NodeState:
        """See Memory."""
        return _state_of(context.state)

    def save(self, context: Any, state: NodeState) -> None:
        """See Memory."""
        context.state = _records_of(state)


class FolderMemory:
    """In the node's own folder (its configuration's `node`), one file a request: a SuperNode started again goes on with what it knew."""

    @contextmanager
    def held(self, context: Any) -> Iterator[None]:
        """See Memory. A SuperNode answers each message in a process of its own, several at once: of two that began from the same state,
        the later would undo the earlier, and both would seal under the same masks, whose difference is that of the vectors."""
        path = _file(context).with_suffix(".lock")
        with explained(path):
            _private_folder(path.parent)
            file = path.open("ab")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, also by a kill
            yield

    def load(self, context: Any) -> NodeState:
        """See Memory.

        Raises:
            FederationError: the file is damaged.
        """
        path = _file(context)
        if not path.is_file():
            return NodeState()
        try:
            return _state_of(recorddict_from_proto(Stored.FromString(_at_rest(context, begun=True).read(path))))
        except (DecodeError, FederationError) as error:
            raise FederationError(
                f"what this node remembered is damaged ({error}); remove {path}, and deploy the request again"
            ) from error

    def save(self, context: Any, state: NodeState) -> None:
        """See Memory."""
        path = _file(context)
        with explained(path):
            _private_folder(path.parent)
        _at_rest(context).write(path, recorddict_to_proto(_records_of(state)).SerializeToString(), mode=0o600)


def _file(context: Any) -> Path:
    """The file of a run's request: `request` may be any text, so its digest names the file."""
    name = hashlib.sha256(str(context.run_config.get("request", "")).encode()).hexdigest()[:32]
    return Path(str(context.node_config["node"])) / "memory" / f"{name}.state"


def _at_rest(context: Any, *, begun: bool = False) -> AtRest:
    """Sealed with a key of the node's own, made with its first state; `begun`: a state is there, and without a key it lies open."""
    key = Path(str(context.node_config["node"])) / STORAGE_KEY
    return AtRest() if begun and not key.exists() else AtRest(Storage(file=str(key)), "memory")


def _private_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)  # it may hold keys


def _records_of(state: NodeState) -> Any:
    return wire.pack(Parcel(state.arrays, state.blobs)) if state.arrays or state.blobs else RecordDict()


def _state_of(records: Any) -> NodeState:
    if not len(records):
        return NodeState()
    parcel = wire.unpack(records)
    return NodeState(parcel.arrays, dict(parcel.blobs))
