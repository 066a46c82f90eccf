"""The members of a tar archive (POSIX.1-1988 ustar), read strictly and in bounded memory.

Plain files and folders only: no links, devices, sparse files, long-name extensions; no name twice; no compression, so nothing is
larger inside than outside. Extended headers (pax) are passed over where they tell of times and owners alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cellwright.errors import HubRefused

_BLOCK = 512
_MOST_EXTENDED_BYTES = 16_384
_MOST_TAIL_BYTES = 1 << 20
_HARMLESS = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"}
_FILE, _FOLDER, _EXTENDED = (b"0", b"\0"), b"5", (b"x", b"g")


@dataclass(frozen=True)
class Member:
    """A plain file of an archive; its bytes lie in [start, start + size) of it."""

    name: str
    start: int
    size: int


def members(file: BinaryIO, total: int, most: int) -> Iterator[Member]:
    """The plain files of an archive of `total` bytes, at most `most`. Raises HubRefused."""
    at, seen = 0, 0
    while True:
        file.seek(at)
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            raise _bad("it ends without an end mark: it is cut off")
        if not any(header):
            _check_tail(file, total - at)
            return
        _check_sum(header)
        kind, size = header[156:157], _octal(header[124:136])
        start, at = at + _BLOCK, at + _BLOCK + -(-size // _BLOCK) * _BLOCK
        if start + size > total:
            raise _bad("a file in it ends after the archive: it is cut off")
        seen += 1
        if seen > 2 * most:
            raise _bad(f"it holds more than {most} files")
        if kind in _FILE:
            yield Member(_name(header), start, size)
        elif kind in _EXTENDED:
            _check_extended(file, size)
        elif kind != _FOLDER or size:
            raise _bad(f"'{_name(header)[:80]}' is a link, a device or of another special kind ({kind!r})")


def _name(header: bytes) -> str:
    name, prefix = (header[a:b].split(b"\0", 1)[0] for a, b in ((0, 100), (345, 500)))
    whole = (prefix + b"/" + name if prefix and header[257:262] == b"ustar" else name).decode("utf-8", "backslashreplace")
    return whole.removeprefix("./")


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if not text.isdigit() or any(c > ord("7") for c in text):
        raise _bad("a size in it is not an octal number")
    return int(text, 8)


def _check_sum(header: bytes) -> None:
    expected = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if _octal(header[148:156]) != expected:
        raise _bad("the checksum of a header does not fit: it is no tar archive, or damaged")


def _check_extended(file: BinaryIO, size: int) -> None:
    """A pax header: lines of "<length> <key>=<value>"."""
    if size > _MOST_EXTENDED_BYTES:
        raise _bad(f"an extended header has {size} bytes, at most {_MOST_EXTENDED_BYTES} are read")
    rest = file.read(size)
    while rest:
        digits, _, _ = rest.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        record = rest[len(digits) + 1 : length]
        key, equals, _ = record.partition(b"=")
        if not equals or key.decode("utf-8", "replace") not in _HARMLESS:
            raise _bad(
                f"an extended header changes '{key[:40].decode('utf-8', 'replace')}', which a plain archive has no need of"
            )
        rest = rest[length:]


def _check_tail(file: BinaryIO, left: int) -> None:
    if left > _MOST_TAIL_BYTES or any(file.read(_MOST_TAIL_BYTES)):
        raise _bad("something follows its end mark")


def _bad(what: str) -> HubRefused:
    return HubRefused(f"the file is said to be a ModelPack (a plain tar of an OCI image layout) and is refused: {what}")
