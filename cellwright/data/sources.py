"""Files of your own: taken into the raw folder whole, what is new at a time, with a manifest of what was taken.

`ingested.json` beside them lists each file's name, size, SHA-256 and newest time stamp. A file that is longer than before and
begins with the same bytes has grown; one that changed otherwise is refused, because an earlier version could not be made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cellwright.catalogue import Entry
from cellwright.data.fetch import CHUNK_BYTES, sha256_of
from cellwright.errors import SourceError
from cellwright.files import whole_folder, write_text

MANIFEST = "ingested.json"
SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".gz")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Taken(_Frozen):
    """One file of the raw folder."""

    name: str
    size_bytes: int
    sha256: str
    last_ms: int | None = None  # newest time stamp in it, epoch ms, where it was looked for


class Manifest(_Frozen):
    """`ingested.json`."""

    files: tuple[Taken, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a raw folder; empty where there is none yet.

        Raises:
            SourceError: it is damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            return cls()
        try:
            return cls.model_validate_json(path.read_text())
        except ValueError as error:
            raise SourceError(f"{path} is damaged ({error}); remove {folder} and ingest again") from error

    @property
    def last_ms(self) -> int | None:
        """Newest time stamp of all files."""
        return max((f.last_ms for f in self.files if f.last_ms is not None), default=None)


@dataclass(frozen=True)
class Changes:
    """What a source holds that the raw folder does not."""

    new: tuple[Path, ...]
    grown: tuple[Path, ...]
    found: tuple[Path, ...]

    @property
    def any(self) -> bool:
        """Whether there is anything to take."""
        return bool(self.new or self.grown)


def found_files(entry: Entry, root: Path) -> tuple[Path, ...]:
    """The files that `files:` means, sorted by name.

    Raises:
        SourceError: there are none, or two have the same name.
    """
    given = Path(entry.files or "")
    place = given if given.is_absolute() else root / given
    if place.is_dir():
        paths = [p for p in place.iterdir() if p.is_file() and p.suffix in SUFFIXES and not p.name.startswith(".")]
    elif any(c in str(place) for c in "*?["):
        anchor = Path(place.anchor)
        paths = [p for p in anchor.glob(str(place.relative_to(anchor))) if p.is_file()]
    else:
        paths = [place] if place.is_file() else []
    if not paths:
        more = f" {entry.note}" if entry.note else ""
        raise SourceError(
            f"{entry.name}: there is no file at {place} (files: {entry.files}). Put it there or correct `files`.{more}"
        )
    if len({p.name for p in paths}) < len(paths):
        raise SourceError(f"{entry.name}: two files at {place} have the same name; file names must differ")
    return tuple(sorted(paths, key=lambda p: p.name))


def changes(found: Sequence[Path], manifest: Manifest, *, grows: bool) -> Changes:
    """Compare a source with what was taken before; a single file that changed is taken anew.

    Raises:
        SourceError: a file of a growing source changed under its old name.
    """
    before = {f.name: f for f in manifest.files}
    if not grows:
        return Changes(tuple(p for p in found if p.name not in before or _differs(p, before[p.name])), (), tuple(found))
    new = tuple(p for p in found if p.name not in before)
    grown = tuple(p for p in found if p.name in before and _grown(p, before[p.name]))
    return Changes(new, grown, tuple(found))


def _differs(path: Path, before: Taken) -> bool:
    return path.stat().st_size != before.size_bytes or sha256_of(path) != before.sha256


def _grown(path: Path, before: Taken) -> bool:
    size = path.stat().st_size
    if not _differs(path, before):
        return False
    if size > before.size_bytes and _begins(path, before):
        return True
    raise SourceError(
        f"{path} changed under its old name since it was ingested ({before.size_bytes} bytes then, {size} now): what was made "
        f"from the old file could not be made again. Give new data a new file, or remove the raw folder to ingest all anew"
    )


def _begins(path: Path, before: Taken) -> bool:
    digest, left = hashlib.sha256(), before.size_bytes
    with path.open("rb") as content:
        while left and (block := content.read(min(CHUNK_BYTES, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest() == before.sha256


def take(changed: Changes, raw: Path, manifest: Manifest, last_ms: dict[str, int | None]) -> Manifest:
    """Bring the raw folder up to date, whole or not at all; files that left the source stay."""
    names = {p.name for p in (*changed.new, *changed.grown)}
    kept = [f for f in manifest.files if f.name not in names]
    with whole_folder(raw) as folder:
        for old in kept:
            _link(raw / old.name, folder / old.name)
        taken = [_taken(p, folder, last_ms.get(p.name)) for p in (*changed.new, *changed.grown)]
        after = Manifest(files=tuple(sorted([*kept, *taken], key=lambda f: f.name)))
        write_text(folder / MANIFEST, after.model_dump_json(indent=2) + "\n")
    return after


def _link(old: Path, new: Path) -> None:
    """The same file under another folder, without copying its bytes where the file system can."""
    if not old.is_file():
        raise SourceError(f"{old} is listed as ingested and is gone; remove {old.parent} and ingest again")
    try:
        os.link(old, new)
    except OSError:  # a file system without hard links
        shutil.copyfile(old, new)


def _taken(path: Path, folder: Path, last_ms: int | None) -> Taken:
    copy = folder / path.name
    shutil.copyfile(path, copy)
    return Taken(name=path.name, size_bytes=copy.stat().st_size, sha256=sha256_of(copy), last_ms=last_ms)


def raw_files(folder: Path) -> list[Path]:
    """The upstream files of a raw folder.

    Raises:
        SourceError: nothing was ingested yet.
    """
    files = _data(folder.iterdir()) if folder.is_dir() else []
    if not files:
        raise SourceError(f"{folder} holds no files; run `cellwright step ingest` first")
    return files


def _data(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.is_file() and p.name != MANIFEST and not p.name.startswith("."))
