"""Making a patch: every mode that is asked for is tried, the smallest is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from cellwright.delta.binary import Binary, FileId
from cellwright.delta.modes import mode
from cellwright.delta.patch import Header, Patch, header_bytes, inspect
from cellwright.delta.streams import Streams
from cellwright.errors import WrongUse
from cellwright.files import explained

DEFAULT_MODES = ("whole", "chunks", "weights")


def make(base: Path, target: Path, out: Path, modes: Iterable[str] = DEFAULT_MODES) -> Patch:
    """Write to `out` the smallest patch that rebuilds `target` from `base`. The same files and modes give the same bytes.

    Memory does not grow with the files (about 100 MB). `out` appears whole or not at all.

    Raises:
        UnknownName: there is no such mode.
        WrongUse: no mode is named.
        DeltaError: a file cannot be read, or changed meanwhile.
        WorkspaceError: the disk is full or the folder is not writable.
    """
    names = sorted(set(modes))
    if not names:
        raise WrongUse("no mode of a patch was named; name one, or leave `modes` out")
    ways = {name: mode(name) for name in names}
    with Binary(base) as old, Binary(target) as new, explained(out):
        ends = old.identity(), new.identity()
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            tried = []
            for name, way in ways.items():
                (place := Path(folder, name)).mkdir()
                with Streams(place, new.bytes) as into:
                    way.difference(old, new, into)
                tried.append(_written(Path(folder, f"{name}.patch"), name, ends, into))
            smallest = min(tried, key=lambda patch: (patch.bytes, patch.mode))
            smallest.path.replace(out)
    return inspect(out)


def _written(path: Path, name: str, ends: tuple[FileId, FileId], streams: Streams) -> Patch:
    header = Header(mode=name, base=ends[0], target=ends[1], streams=streams.finished)
    with path.open("wb") as out:
        out.write(header_bytes(header))
        streams.append_to(out)
    return Patch(path, name, header.base, header.target, path.stat().st_size)
