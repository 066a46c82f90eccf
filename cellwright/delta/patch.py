"""The patch file: which bytes it starts from, which it leads to, and how.

8 bytes    "CWDELTA" and a zero byte
2 bytes    version of the format, little-endian: 1
4 bytes    length of the header, little-endian
header     canonical JSON: {"base": {"bytes", "sha256"}, "mode", "streams": [[name, bytes], ...], "target": {"bytes", "sha256"}}
streams    one after the other, in the header's order, to the end of the file
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellwright.bundle.manifest import canonical
from cellwright.delta.binary import Binary, FileId
from cellwright.delta.streams import MOST_STREAMS
from cellwright.errors import DeltaError

MAGIC, VERSION = b"CWDELTA\0", 1
_HEAD = struct.Struct("<8sHI")
_MOST_HEADER_BYTES = 1 << 14

Name = Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,40}$")]
Stream = tuple[Name, Annotated[int, Field(ge=0, lt=1 << 62)]]


class Header(BaseModel):
    """What a patch says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    mode: Name
    base: FileId
    target: FileId
    streams: Annotated[list[Stream], Field(max_length=MOST_STREAMS)]


@dataclass(frozen=True)
class Patch:
    """A patch on disk."""

    path: Path
    mode: str
    base: FileId
    target: FileId
    bytes: int  # of the whole patch file

    @property
    def share(self) -> float:
        """Its bytes as a share of the target's; 0 for an empty target."""
        return self.bytes / self.target.bytes if self.target.bytes else 0.0


def inspect(path: Path) -> Patch:
    """What a patch is for, from its header alone; nothing of the payload is read.

    Raises:
        DeltaError: it is no patch of this format, damaged, or not as long as it says.
    """
    with Binary(path) as file:
        header, _ = read_header(file)
    return Patch(path, header.mode, header.base, header.target, file.bytes)


def header_bytes(header: Header) -> bytes:
    """Everything before the streams."""
    content = canonical(header.model_dump(mode="json"))
    return _HEAD.pack(MAGIC, VERSION, len(content)) + content


def read_header(file: Binary) -> tuple[Header, int]:
    """The header and where the streams begin. Raises DeltaError."""
    if file.bytes < _HEAD.size or file.read(0, len(MAGIC)) != MAGIC:
        raise DeltaError(f"{file.path} is no patch: it does not begin with {MAGIC!r}")
    _, version, length = _HEAD.unpack(file.read(0, _HEAD.size))
    if version != VERSION:
        raise DeltaError(
            f"{file.path} is a patch of version {version}, this is for version {VERSION}; update, or fetch the whole file"
        )
    if length > min(_MOST_HEADER_BYTES, file.bytes - _HEAD.size):
        raise DeltaError(f"{file.path}: a header of {length} bytes in a patch of {file.bytes}; it is damaged, fetch it again")
    header = _parsed(file.read(_HEAD.size, length), file.path)
    start = _HEAD.size + length
    expected = start + sum(count for _, count in header.streams)
    if expected != file.bytes:
        raise DeltaError(f"{file.path}: the header speaks of {expected} bytes, there are {file.bytes}; fetch it again")
    return header, start


def _parsed(content: bytes, path: Path) -> Header:
    try:
        raw = json.loads(content)
        header = Header.model_validate_json(content)
    except (ValueError, RecursionError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else type(error).__name__
        raise DeltaError(f"{path}: the header of the patch is not valid ({detail}); fetch it again") from error
    if canonical(raw) != content:
        raise DeltaError(f"{path}: the header of the patch is not canonical JSON; it is refused")
    if len({name for name, _ in header.streams}) != len(header.streams):
        raise DeltaError(f"{path}: the patch has two streams of one name; it is refused")
    return header
