"""Applying a patch: the target's exact bytes, or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cellwright.delta.binary import Binary, FileId
from cellwright.delta.modes import mode
from cellwright.delta.modes._contract import Mode, Sink
from cellwright.delta.patch import Header, read_header
from cellwright.delta.streams import Sources
from cellwright.errors import DeltaError, UnknownName
from cellwright.files import explained

MOST_TARGET_BYTES = 16 << 30


def apply(base: Path, patch: Path, target: Path, *, expected: FileId | None = None) -> None:
    """Rebuild `target` from `base` and `patch`, in under 150 MB of memory whatever their size.

    Args:
        expected: which bytes the target must be, from a source that is trusted (a signed manifest). A patch for others is refused
            before anything is read of it; without, the patch is taken at its word, up to 16 GiB.

    The target appears whole, with the hash that was announced, or not at all; nothing else is written.

    Raises:
        DeltaError: the patch is malformed, for another base or target, or rebuilds other bytes.
        WorkspaceError: the disk is full or the folder is not writable.
    """
    with Binary(patch) as file:
        header, start = read_header(file)
        _check_target(header, expected)
        way = _mode(header)
        with Binary(base) as old, explained(target):
            _check_base(old, header, way)
            sources = Sources(file, start, header.streams)
            _rebuild(way, old, sources, header.target, target)


def _rebuild(way: Mode, base: Binary, sources: Sources, expected: FileId, target: Path) -> None:
    """Write aside, check, rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            sink = Sink(out, expected)
            way.rebuild(base, sources, sink)
            sink.check()
            sources.check_end()
            out.flush()
            os.fsync(out.fileno())
        Path(aside).chmod(0o644)
        Path(aside).replace(target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _check_target(header: Header, expected: FileId | None) -> None:
    if expected is not None and header.target != expected:
        raise DeltaError(
            f"the patch leads to {header.target.bytes} bytes of SHA-256 {header.target.sha256}, wanted are {expected.bytes} bytes "
            f"of {expected.sha256}; fetch another patch or the whole file"
        )
    if header.target.bytes > MOST_TARGET_BYTES:
        raise DeltaError(
            f"the patch announces {header.target.bytes} bytes, at most {MOST_TARGET_BYTES} are rebuilt; it is refused"
        )


def _check_base(base: Binary, header: Header, way: Mode) -> None:
    if way.needs_base and (base.bytes != header.base.bytes or base.identity() != header.base):
        raise DeltaError(
            f"the patch is for {header.base.bytes} bytes of SHA-256 {header.base.sha256}, {base.path} is another file "
            f"({base.bytes} bytes); fetch a patch from that version, or the whole file"
        )


def _mode(header: Header) -> Mode:
    try:
        return mode(header.mode)
    except UnknownName as error:
        raise DeltaError(f"the patch is of a mode that is not known here: {error} Update, or fetch the whole file") from error
