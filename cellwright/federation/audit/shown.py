"""What a coordinator shows its auditor in one message of kind "audit", and what the auditor answers.

    the coordinator shows                                       the auditor answers
    events: what was sent, was late, was lost, was deployed     the rows that its log has beyond those the coordinator has
    messages of nodes, to be judged together                    how reliable each node is
    how many rows its own log has; what to do then              which question it answers

A node's message travels whole, as one blob: its signature is over its bytes. Rows are records without time, place and hash, which
are each log's own; notes, which a log makes of itself, are none of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cellwright.errors import Refused
from cellwright.federation.contract import Parcel

KIND = "audit"
ROW = ("kind", "node", "round", "digest", "verdict", "rule", "reason")
Then = Literal["", "seal", "close"]
Event = list[Any]  # its name, then what it is told of
Row = dict[str, Any]
ROWS, RELIABILITY = "rows", "reliability"  # blobs of the answer
_TOLD, _MESSAGE = "told", "message/"


@dataclass(frozen=True)
class Shown:
    """What one message shows."""

    have: int  # rows in the coordinator's log
    events: Sequence[Event] = ()
    kind: str = ""  # of the messages
    round: int = 0
    messages: Mapping[str, Parcel] = field(default_factory=dict)  # by node
    then: Then = ""


def shared(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a message that both saw: not a log's note of itself, nor the channel's of who greeted it."""
    return record["verdict"] != "note" and record["kind"] != "hello"


def row_of(record: Mapping[str, Any]) -> Row:
    """A record without what is its log's own."""
    return {name: record[name] for name in ROW}


def closed_up(shown: Shown) -> Parcel:
    """As a parcel."""
    nodes = list(shown.messages)
    told = {
        "have": shown.have,
        "events": list(shown.events),
        "kind": shown.kind,
        "round": shown.round,
        "nodes": nodes,
        "then": shown.then,
    }
    blobs = {f"{_MESSAGE}{i}": packed(shown.messages[node]) for i, node in enumerate(nodes)}
    return Parcel(blobs={_TOLD: json.dumps(told).encode(), **blobs})


def opened(parcel: Parcel) -> Shown:
    """What a parcel shows.

    Raises:
        Refused: it is of another form.
    """
    try:
        told = json.loads(parcel.blobs[_TOLD])
        messages = {str(node): unpacked(parcel.blobs[f"{_MESSAGE}{i}"]) for i, node in enumerate(told["nodes"])}
        events = [list(event) for event in told["events"]]
        then: Then = {"": "", "seal": "seal", "close": "close"}[told["then"]]  # type: ignore[assignment]
        return Shown(int(told["have"]), events, str(told["kind"]), int(told["round"]), messages, then)
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"what is shown to an auditor is of another form ({type(error).__name__}: {error})") from None


def packed(parcel: Parcel) -> bytes:
    """A parcel as bytes, from which one with the same digest is read."""
    from safetensors.numpy import save

    arrays = {f"{i:06}": np.array(array, order="C", copy=None) for i, array in enumerate(parcel.arrays.values())}
    blobs = {f"blob/{i:06}": np.frombuffer(blob, np.uint8) for i, blob in enumerate(parcel.blobs.values())}
    names = {"arrays": list(parcel.arrays), "blobs": list(parcel.blobs), "values": dict(parcel.values)}
    return save({**arrays, **blobs}, {"told": json.dumps(names)})


def unpacked(content: bytes) -> Parcel:
    """What `packed` was given.

    Raises:
        ValueError: it is of another form.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(content[:8], "little")
        told = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["told"])
        found = load(content)
        arrays = {str(name): found[f"{i:06}"] for i, name in enumerate(told["arrays"])}
        blobs = {str(name): found[f"blob/{i:06}"].tobytes() for i, name in enumerate(told["blobs"])}
        return Parcel(arrays, blobs, dict(told["values"]))
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"a message in it cannot be read: {error}") from None
