"""Patches that were made to do harm, or for something else: refused with a reason, and nothing is left of them."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
import zstandard

from cellwright.delta import FileId, apply, inspect, make
from cellwright.delta.patch import MAGIC, Header, header_bytes
from cellwright.errors import DeltaError, WorkspaceError

BASE, TARGET = b"base " * 400, b"target " * 300
CLAIM = 1 << 40


def identity(content: bytes, size: int | None = None) -> FileId:
    return FileId(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content) if size is None else size)


def squeezed(content: bytes, **options: int) -> bytes:
    chosen = zstandard.ZstdCompressionParameters.from_level(3, write_content_size=0, **options)
    packer = zstandard.ZstdCompressor(compression_params=chosen).compressobj()
    return packer.compress(content) + packer.flush()


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base").write_bytes(BASE)
    return tmp_path


def forge(folder, mode: str, *, target: FileId | None = None, base: FileId | None = None, **streams: bytes) -> None:
    """A patch whose header is in order, with the given streams."""
    names = [(name, len(content)) for name, content in sorted(streams.items())]
    header = Header(mode=mode, base=base or identity(BASE), target=target or identity(TARGET), streams=names)
    (folder / "patch").write_bytes(header_bytes(header) + b"".join(streams[name] for name, _ in names))


def refused(folder, reason: str, **options) -> None:
    with pytest.raises(DeltaError, match=reason):
        apply(folder / "base", folder / "patch", folder / "out", **options)
    assert sorted(p.name for p in folder.iterdir()) == ["base", "patch"]


def test_a_forged_patch_that_is_honest_is_applied(folder):
    forge(folder, "whole", new=squeezed(TARGET))
    apply(folder / "base", folder / "patch", folder / "out", expected=identity(TARGET))
    assert (folder / "out").read_bytes() == TARGET


def test_other_bytes_than_announced(folder):
    forge(folder, "whole", new=squeezed(TARGET[::-1]))
    refused(folder, "the rebuilt file has SHA-256 .* was announced; fetch the whole file instead")


def test_a_bomb_stops_at_the_announced_bytes(folder):
    forge(folder, "whole", new=squeezed(TARGET + bytes(300 << 20)))
    refused(folder, "stream 'new' goes on after the file is whole")


def test_a_bomb_in_a_stream_that_nobody_reads(folder):
    forge(folder, "whole", new=squeezed(TARGET), ulp4=squeezed(bytes(1 << 20)))
    refused(folder, "stream 'ulp4' goes on after the file is whole")


def test_more_than_can_be_held_is_not_begun(folder):
    forge(folder, "whole", new=squeezed(TARGET), target=identity(TARGET, CLAIM))
    refused(folder, "announces 1099511627776 bytes, at most 17179869184 are rebuilt")


def test_a_window_that_would_fill_the_memory(folder):
    forge(folder, "whole", new=squeezed(bytes(1 << 20), window_log=27))
    refused(folder, "stream 'new' is damaged .*requires too much memory")


def test_a_stream_that_is_too_short_or_missing(folder):
    forge(folder, "whole", new=squeezed(TARGET[:-7]))
    refused(folder, "stream 'new' ends 7 bytes early")
    forge(folder, "whole", old=b"")
    refused(folder, "no stream 'new', which its mode needs")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (varint(1) + b"\1" + varint(10) + varint(len(BASE) - 9), "copies bytes 1991 to 2001, the base has 2000"),
        (varint(1) + b"\1" + varint(10) + varint(CLAIM), "copies bytes 1099511627776 to"),
        (varint(1) + b"\0" + varint(CLAIM), "makes 1099511627776 bytes where 2100 are left"),
        (varint(1) + b"\1" + varint(10) + varint(0), "makes 10 of the 2100 bytes"),
        (varint(CLAIM), "has 1099511627776 instructions, at most"),
        (varint(1) + b"\xff", "an instruction 255"),
        (varint(1) + b"\0" + b"\xff" * 12, "a number of more than 63 bits"),
        (varint(2) + b"\1" + varint(10) + varint(0), "stream 'how' ends 1 bytes early"),
        (varint(1) + b"\3" + varint(10) + varint(0), "10 bytes of numbers of 4 bytes"),
        (varint(1) + b"\3" + varint(12) + varint(0), "no stream 'ulp4.0'"),
    ],
)
@pytest.mark.parametrize("mode", ["chunks", "weights"])
def test_instructions_that_lead_astray(folder, mode, how, reason):
    forge(folder, mode, how=squeezed(how))
    refused(folder, reason)


def test_as_many_empty_instructions_as_there_may_be_end(folder):
    forge(folder, "chunks", how=squeezed(varint(1 << 16) + b"\0\0" * (1 << 16)))
    refused(folder, "makes 0 of the 2100 bytes")


def test_a_segment_that_claims_what_is_not_its_own(folder):
    claims = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    forge(folder, "prefix", frames=struct.pack("<I", len(claims)) + claims)
    refused(folder, "a segment that claims 1048576 bytes where 2100 belong")
    silent = squeezed(TARGET)
    forge(folder, "prefix", frames=struct.pack("<I", len(silent)) + silent)
    refused(folder, "a segment that claims 18446744073709551615 bytes")
    forge(folder, "prefix", frames=struct.pack("<I", CLAIM >> 9))
    refused(folder, "a segment of 2147483648 bytes")
    forge(folder, "prefix", frames=struct.pack("<I", 500) + b"x" * 20)
    refused(folder, "stream 'frames' ends early")
    forge(folder, "prefix", frames=struct.pack("<I", 20) + b"x" * 20)
    refused(folder, "a damaged segment")


def test_a_patch_for_something_else_is_refused_before_the_base_is_read(folder):
    (folder / "base").unlink()
    forge(folder, "whole", new=squeezed(TARGET))
    with pytest.raises(DeltaError, match=f"leads to 2100 bytes of SHA-256 .*, wanted are 2000 bytes of {identity(BASE).sha256}"):
        apply(folder / "base", folder / "patch", folder / "out", expected=identity(BASE))


def test_an_unknown_mode(folder):
    forge(folder, "neural", new=b"")
    refused(folder, r"a mode that is not known here: .*'neural'\. There are: chunks.*Update")
    for name in ("_contract", "..os", "__init__"):
        forge(folder, "whole", new=b"")
        content = (folder / "patch").read_bytes()
        _rewrite(folder, lambda header, name=name: header | {"mode": name}, content)
        refused(folder, "not known here|header of the patch is not valid")


def _rewrite(folder, change, content: bytes) -> None:
    length = struct.unpack_from("<I", content, 10)[0]
    header = json.dumps(change(json.loads(content[14 : 14 + length])), sort_keys=True, separators=(",", ":")).encode()
    (folder / "patch").write_bytes(content[:10] + struct.pack("<I", len(header)) + header + content[14 + length :])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h | {"note": "x"}, "not valid"),
        (lambda h: h | {"streams": [["../new", 5]]}, "not valid"),
        (lambda h: h | {"streams": [["/etc/new", 5]]}, "not valid"),
        (lambda h: h | {"streams": [["new", -5]]}, "not valid"),
        (lambda h: h | {"streams": [["new", True]]}, "not valid"),
        (lambda h: h | {"streams": [["new", 1e3]]}, "not valid"),
        (lambda h: h | {"streams": [[f"s{n}", 0] for n in range(100)]}, "not valid"),
        (lambda h: h | {"streams": [*h["streams"], ["new", 0]]}, "two streams of one name"),
        (lambda h: h | {"streams": []}, "the header speaks of"),
        (lambda h: h | {"streams": [["new", 1 << 50]]}, "the header speaks of"),
        (lambda h: h | {"target": h["target"] | {"sha256": "F" * 64}}, "not valid"),
        (lambda h: h | {"target": h["target"] | {"sha256": "f" * 64 + "\n"}}, "not valid"),
        (lambda h: h | {"target": h["target"] | {"bytes": -1}}, "not valid"),
        (lambda h: {k: v for k, v in h.items() if k != "base"}, "not valid"),
        (lambda h: [h], "not valid"),
    ],
)
def test_headers_that_are_not_in_order(folder, change, reason):
    forge(folder, "whole", new=squeezed(TARGET))
    _rewrite(folder, change, (folder / "patch").read_bytes())
    refused(folder, reason)
    with pytest.raises(DeltaError, match=reason):
        inspect(folder / "patch")


def test_frames_of_the_file_that_are_not_in_order(folder):
    forge(folder, "whole", new=squeezed(TARGET))
    good = (folder / "patch").read_bytes()
    for content, reason in (
        (b"", "is no patch"),
        (b"PK\3\4" + good, "is no patch"),
        (good[:12], "is no patch"),
        (MAGIC + struct.pack("<H", 2) + good[10:], "a patch of version 2, this is for version 1"),
        (good[:10] + struct.pack("<I", 1 << 31) + good[14:], "a header of 2147483648 bytes"),
        (good[:-1], "fetch it again"),
        (good + b"\0", "fetch it again"),
        (good[:14] + b" " + good[15:], "not valid|not canonical"),
        (good[:14] + b"[" * (len(good) - 14), "not valid"),
    ):
        (folder / "patch").write_bytes(content)
        refused(folder, reason)


def test_json_that_another_reader_might_read_otherwise(folder):
    forge(folder, "whole", new=squeezed(TARGET))
    content = (folder / "patch").read_bytes()
    length = struct.unpack_from("<I", content, 10)[0]
    header = content[14 : 14 + length].replace(b'"mode":"whole"', b'"mode":"chunks","mode":"whole"')
    (folder / "patch").write_bytes(content[:10] + struct.pack("<I", len(header)) + header + content[14 + length :])
    refused(folder, "not canonical JSON")


def test_what_was_there_before_stays_when_it_fails(folder):
    forge(folder, "whole", new=squeezed(TARGET[::-1]))
    (folder / "out").write_bytes(b"the version before")
    with pytest.raises(DeltaError):
        apply(folder / "base", folder / "patch", folder / "out")
    assert (folder / "out").read_bytes() == b"the version before"
    assert sorted(p.name for p in folder.iterdir()) == ["base", "out", "patch"]


def test_places_that_cannot_be_written_or_read(folder):
    forge(folder, "whole", new=squeezed(TARGET))
    with pytest.raises(WorkspaceError, match="a file lies where a folder is needed"):
        apply(folder / "base", folder / "patch", folder / "base" / "out")
    with pytest.raises(WorkspaceError, match="a file lies where a folder is needed"):
        make(folder / "base", folder / "patch", folder / "base" / "out")
    with pytest.raises(DeltaError, match=r"cannot read .*missing"):
        make(folder / "missing", folder / "base", folder / "out")
    with pytest.raises(DeltaError, match=r"cannot read .*missing"):
        apply(folder / "base", folder / "missing", folder / "out")
    assert sorted(p.name for p in folder.iterdir()) == ["base", "patch"]
