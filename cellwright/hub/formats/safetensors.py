"""safetensors: a JSON header that names each tensor's type, shape and place, then the numbers; nothing in it can run.

The header is read here by hand, bounded, so that a hostile one costs little: 8 bytes of length (little-endian), the JSON, the data.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cellwright.bundle.manifest import Manifest
from cellwright.errors import HubRefused
from cellwright.hub.formats._contract import Given, refuse_code, wrapped

title = "safetensors"
MOST_HEADER_BYTES = 16 * 1024**2
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def sniff(head: bytes) -> None:
    """A length that can be a header's, then an opening brace."""
    length = int.from_bytes(head[:8], "little")
    if len(head) > 8 and (not 2 <= length <= MOST_HEADER_BYTES or head[8:9] != b"{"):
        refuse_code(head, title)
        raise HubRefused("the file is said to be safetensors and does not begin with the length of a JSON header; check the file")


def layout(given: Given, folder: Path) -> Manifest:
    """Check it, then wrap it."""
    check(given.path)
    return wrapped(given, folder, "safetensors")


def check(path: Path) -> None:
    """Raises HubRefused unless the header is sound and the tensors fill the file exactly."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(9)
        sniff(prefix)
        length = int.from_bytes(prefix[:8], "little")
        if len(prefix) < 9 or 8 + length > size:
            raise _broken(f"its header ends after the file, which has {size} bytes")
        file.seek(8)
        header = _header(file.read(length))
    places = sorted(_place(name, entry) for name, entry in header.items() if name != "__metadata__")
    _check_metadata(header.get("__metadata__", {}))
    end = 0
    for start, stop, name in places:
        if start != end:
            raise _broken(f"tensor '{name[:80]}' begins at byte {start}, expected {end}: there are gaps or overlaps")
        end = stop
    if 8 + length + end != size:
        raise _broken(f"its tensors end at byte {8 + length + end}, the file has {size}; it is cut off or something is appended")


def _header(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _broken(f"its header is not JSON ({str(error)[:80]})") from None
    if not isinstance(found, dict):
        raise _broken("its header is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _place(name: str, entry: Any) -> tuple[int, int, str]:
    """Start, stop and name of a tensor; its size must follow from its type and shape."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(f"the entry of tensor '{name[:80]}' is not of dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2 or len(shape) > 64:
        raise _broken(f"shape or place of tensor '{name[:80]}' are not whole numbers")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _BITS:
        raise _broken(f"tensor '{name[:80]}' is of the unknown type {str(entry['dtype'])[:20]}")
    bits = math.prod(shape) * _BITS[entry["dtype"]]
    if bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise _broken(f"tensor '{name[:80]}' takes {offsets[1] - offsets[0]} bytes, its type and shape {_bytes_of(bits)}")
    return offsets[0], offsets[1], name


def _bytes_of(bits: int) -> str:
    """In words; a shape may multiply to more digits than anybody reads, or a float holds."""
    return f"{bits // 8}" if bits < 1 << 66 else "more than any file has"


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _check_metadata(found: Any) -> None:
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise _broken("its metadata are not texts")


def _broken(what: str) -> HubRefused:
    return HubRefused(f"the file is said to be safetensors and is not whole or sound: {what}; export it again")
