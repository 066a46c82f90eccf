"""What a party keeps from one message to the next, and from one process to the next: sets of arrays by name. No pickle.

Each set is one blob (safetensors): what is not looked into costs nothing while a message is answered.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Arrays, NodeState
from cellwright.files import write_bytes

_EPOCH = "epoch"


def put(state: NodeState, run: str, slot: str, arrays: Arrays) -> None:
    """Remember arrays in the node's state, in place of those of the same run and slot."""
    state.blobs[_name(run, slot)] = _packed(arrays)


def get(state: NodeState, run: str, slot: str) -> Arrays:
    """What `put` remembered.

    Raises:
        Refused: nothing was.
    """
    if _name(run, slot) not in state.blobs:
        raise Refused(f"run '{run}' has not begun here; send 'vertical_begin' first")
    return _unpacked(state.blobs[_name(run, slot)], "the node's state")


def keep(state: NodeState, folder: Path | None, run: str, slot: str, epoch: int, arrays: Arrays) -> None:
    """Keep arrays of an epoch in the state and, if there is one, in the folder.

    Raises:
        WorkspaceError: the folder cannot be written.
    """
    packed = _packed({**arrays, _EPOCH: np.array([epoch], np.int64)})
    state.blobs[_name(run, slot)] = packed
    if folder is not None:
        write_bytes(_file(folder, run, slot), packed)


def kept(state: NodeState, folder: Path | None, run: str, slot: str, epoch: int, party: str) -> Arrays:
    """What was kept of an epoch, from the state, else from the folder.

    Raises:
        Refused: it was not, or what is there is of another epoch.
    """
    packed, where = state.blobs.get(_name(run, slot), b""), "the node's state"
    if not packed and folder is not None and _file(folder, run, slot).is_file():
        packed, where = _file(folder, run, slot).read_bytes(), str(_file(folder, run, slot))
    found = _unpacked(packed, where) if packed else {}
    held = int(found.pop(_EPOCH)[0]) if _EPOCH in found else None
    if held != epoch:
        raise Refused(
            f"party '{party}' has {'nothing' if held is None else f'epoch {held}'} where the weights of epoch {epoch} of run '{run}' "
            "were expected; remove the coordinator's checkpoint to train from the start"
        )
    return found


def _packed(arrays: Arrays) -> bytes:
    from safetensors.numpy import save

    packed: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return packed


def _unpacked(packed: bytes, where: str) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: Arrays = load(packed)
    except SafetensorError as error:
        raise FederationError(f"the weights in {where} are damaged ({error}); remove them and train again") from None
    return arrays


def _name(run: str, slot: str) -> str:
    return f"vertical/{run}/{slot}"


def _file(folder: Path, run: str, slot: str) -> Path:
    return folder / f"{run}-{slot}.safetensors"
