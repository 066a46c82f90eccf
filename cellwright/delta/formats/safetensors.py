"""safetensors: the header's length (8 bytes), a JSON header with each tensor's type and place, the tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cellwright.delta.binary import Binary
from cellwright.delta.formats._contract import Tensor, Unreadable

_MOST_HEADER_BYTES = 1 << 24
_TYPES = {  # (floating, bytes)
    "F64": (True, 8), "F32": (True, 4), "F16": (True, 2), "BF16": (True, 2),
    "I64": (False, 8), "I32": (False, 4), "I16": (False, 2), "I8": (False, 1),
    "U64": (False, 8), "U32": (False, 4), "U16": (False, 2), "U8": (False, 1), "BOOL": (False, 1),
    "F8_E4M3": (False, 1), "F8_E5M2": (False, 1),
}  # fmt: skip


def tensors(file: Binary) -> Iterator[Tensor]:
    """Every tensor whose type is known."""
    if file.bytes < 10:
        raise Unreadable
    length = int.from_bytes(file.read(0, 8), "little")
    if not 2 <= length <= min(_MOST_HEADER_BYTES, file.bytes - 8):
        raise Unreadable
    for name, entry in _header(file.read(8, length)).items():
        if name != "__metadata__":
            yield from _tensor(name, entry, 8 + length)


def _header(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unreadable from error
    if not isinstance(found, dict):
        raise Unreadable
    return found


def _tensor(name: str, entry: Any, origin: int) -> Iterator[Tensor]:
    match entry:
        case {"dtype": str(dtype), "data_offsets": [int(start), int(stop)]} if 0 <= start <= stop:
            if dtype in _TYPES and start < stop:
                floating, width = _TYPES[dtype]
                yield Tensor(name, floating, width, origin + start, stop - start)
        case _:
            raise Unreadable
