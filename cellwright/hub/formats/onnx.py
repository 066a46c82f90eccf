"""ONNX: one protobuf message with its weights inside; weights in other files ("external data") are refused.

The whole structure is walked in bounded memory. Models of up to `CHECKED_BYTES` are moreover checked by ONNX itself (known
operators, types that fit); larger ones would take twice their size in memory, so their operators are first looked at where they run.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from cellwright.bundle.manifest import Manifest
from cellwright.errors import HubRefused
from cellwright.hub.formats._contract import Given, refuse_code, wrapped
from cellwright.hub.formats._protobuf import Found, Malformed, Walk

title = "ONNX"
CHECKED_BYTES = 128 * 1024**2
_DEEPEST = 32
# Messages that can hold a tensor, by onnx.proto3: kind -> field number -> kind of what lies there
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_IR_VERSION, _GRAPH, _OPSETS = 1, 7, 8
_EXTERNAL, _LOCATION = 13, 14


def sniff(head: bytes) -> None:
    """A model begins with its IR version (field 1, a varint) as every exporter writes it; any other field may come first too."""
    refuse_code(head, title)
    if head and (head[0] & 7) not in (0, 2):
        raise _broken("it does not begin as a protobuf message does")


def layout(given: Given, folder: Path) -> Manifest:
    """Check it, then wrap it."""
    check(given.path)
    return wrapped(given, folder, "onnx")


def check(path: Path) -> None:
    """Raises HubRefused unless the file is a whole ONNX model with all its weights inside."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        sniff(content[:512])
        walk = Walk(content)
        try:
            present = {field.number for field in walk.fields(0, len(content))}
            _descend(walk, "model", 0, len(content), 0)
        except Malformed as error:
            raise _broken(f"it is no protobuf message ({error})") from None
    if missing := {_IR_VERSION: "IR version", _GRAPH: "graph", _OPSETS: "operator set"}.keys() - present:
        raise _broken(f"the message lacks field {min(missing)} (1: IR version, 7: graph, 8: operator set)")
    if path.stat().st_size <= CHECKED_BYTES:
        _check_by_onnx(path)


def _descend(walk: Walk, kind: str, start: int, stop: int, depth: int) -> None:
    if depth > _DEEPEST:
        raise Malformed(f"messages nested deeper than {_DEEPEST}")
    for field in walk.fields(start, stop):
        if kind == "tensor":
            _refuse_external(field)
        elif (inside := _INSIDE[kind].get(field.number)) is not None and field.value is None:
            _descend(walk, inside, field.start, field.stop, depth + 1)


def _refuse_external(field: Found) -> None:
    if field.number == _EXTERNAL or (field.number == _LOCATION and field.value):
        raise HubRefused(
            "a tensor of the model lies in another file (external data), which does not travel with it and could be any file of "
            "whoever opens it; save it as one file (onnx.save with save_as_external_data=False), or as safetensors"
        )


def _check_by_onnx(path: Path) -> None:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        onnx.checker.check_model(onnx.load_from_string(path.read_bytes()))
    except (onnx.checker.ValidationError, DecodeError, ValueError) as error:
        raise _broken(str(error).strip().partition("\n")[0][:300]) from None


def _broken(what: str) -> HubRefused:
    return HubRefused(f"the file is said to be ONNX and is not whole or sound: {what}; export it again")
