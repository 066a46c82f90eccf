"""ingest: bring the upstream files of the data set to its raw folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellwright.catalogue import Entry, load_catalogue
from cellwright.data.fetch import Progress, pull, silent
from cellwright.data.readers._contract import TIME
from cellwright.data.readers._tables import explained, when
from cellwright.data.sources import Changes, Manifest, changes, found_files, raw_files, take
from cellwright.errors import NothingNew
from cellwright.families import member
from cellwright.files import whole_folder
from cellwright.params import Params
from cellwright.results import Ingested
from cellwright.workspace import Workspace


def ingest(params: Params, ws: Workspace, *, only_new: bool = False, progress: Progress = silent) -> Ingested:
    """Generate, fetch or take the files of `params.dataset`.

    Raises:
        NothingNew: `only_new` was asked and the source holds nothing that was not ingested before.
        SourceError: a source is missing, unreachable, changed, or has the wrong checksum.
    """
    entry = load_catalogue(ws.catalogue).entry(params.dataset)
    if entry.files is not None:
        return _taken(entry, ws, only_new)
    before = _names(ws.raw(entry.name))
    if only_new and before:
        raise NothingNew(f"{entry.name}: nothing new; its sources do not grow")
    if entry.generator is not None:
        _generate(entry, ws)
    else:
        mirror = None if params.ingest.mirror is None else ws.root / params.ingest.mirror
        pull(entry, ws, mirror, progress, timeout_s=params.ingest.timeout_s)
    return _result(entry, ws, new=[n for n in _names(ws.raw(entry.name)) if n not in before], grown=(), last_ms=None)


def news(ws: Workspace, entry: Entry, *, only_new: bool = False) -> bool:
    """Whether the data set's own files have come or grown since they were ingested. Sources of the catalogue never change.

    Raises:
        NothingNew: `only_new` was asked, and there is nothing.
        SourceError: the files are not there.
    """
    raw = ws.raw(entry.name)
    if entry.files is None:
        if only_new and raw.is_dir():
            raise NothingNew(f"{entry.name}: nothing new; its sources do not grow")
        return False
    manifest = Manifest.read(raw)
    changed = changes(found_files(entry, ws.root), manifest, grows=entry.grows)
    if only_new and not changed.any:
        raise NothingNew(_nothing(entry, manifest))
    return changed.any


def _nothing(entry: Entry, manifest: Manifest) -> str:
    since = "" if manifest.last_ms is None else f" since {when(manifest.last_ms, entry)}"
    return f"{entry.name}: nothing new{since} at {entry.files}"


def _generate(entry: Entry, ws: Workspace) -> None:
    from cellwright.data.city import generate

    with whole_folder(ws.raw(entry.name)) as folder:
        generate(folder, dict(entry.generator_options))


def _taken(entry: Entry, ws: Workspace, only_new: bool) -> Ingested:
    raw = ws.raw(entry.name)
    manifest = Manifest.read(raw)
    changed = changes(found_files(entry, ws.root), manifest, grows=entry.grows)
    if changed.any:
        manifest = take(changed, raw, manifest, _newest(entry, changed))
    elif only_new:
        raise NothingNew(_nothing(entry, manifest))
    return _result(entry, ws, [p.name for p in changed.new], [p.name for p in changed.grown], manifest.last_ms)


def _newest(entry: Entry, changed: Changes) -> dict[str, int | None]:
    """Newest time stamp in each file that is about to be taken; reading them also refuses what cannot be read."""
    return {p.name: _last_ms(entry, p) for p in (*changed.new, *changed.grown)}


def _last_ms(entry: Entry, file: Path) -> int | None:
    import polars as pl

    if not entry.grows:
        return None
    reader = member("cellwright.data.readers", entry.reader, what="reader")
    latest: list[int] = []
    for part in reader.frames([file], entry, entry.reader_options):
        with explained(part.file):
            newest = part.frame.select(pl.col(TIME).max()).collect(engine="streaming").item()
        latest += [] if newest is None else [int(newest)]
    return max(latest, default=None)


def _names(raw: Path) -> list[str]:
    return sorted(p.name for p in raw.iterdir()) if raw.is_dir() else []


def _result(entry: Entry, ws: Workspace, new: Sequence[str], grown: Sequence[str], last_ms: int | None) -> Ingested:
    files = raw_files(ws.raw(entry.name))
    return Ingested(
        dataset=entry.name,
        folder=str(ws.raw(entry.name)),
        files=len(files),
        raw_bytes=sum(f.stat().st_size for f in files),
        new=list(new),
        grown=list(grown),
        last=None if last_ms is None else when(last_ms, entry),
    )
