"""Fetching sources: from a mirror folder, or over HTTP with resume; checked by SHA-256, never half a file.

Files are gathered in `.cellwright/downloads/<data set>/` and put into the raw folder together once all are whole.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cellwright.catalogue import Entry, Source
from cellwright.errors import SourceError
from cellwright.files import explained, whole_folder
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    import httpx

Progress = Callable[[str, int, int | None], None]  # (file name, bytes done, bytes in all or None)

CHUNK_BYTES = 1 << 20
ATTEMPTS = 3  # a connection that breaks off is taken up again, this often in one call


def silent(name: str, done: int, total: int | None) -> None:
    """A Progress that shows nothing."""


def pull(entry: Entry, ws: Workspace, mirror: Path | None, progress: Progress = silent, *, timeout_s: float = 60.0) -> list[Path]:
    """Bring the sources of a data set to its raw folder; files that are there with the right checksum are kept.

    Raises:
        SourceError: a source that is neither in the mirror nor reachable, or whose bytes are not those of the catalogue.
        WorkspaceError: the disk is full or the folder is not writable.
    """
    if not entry.sources:
        raise SourceError(f"{entry.name} has no sources to pull: it is generated, or made of files of your own. Run ingest")
    raw, aside = ws.raw(entry.name), ws.downloads(entry.name)
    if all(_whole(raw / s.name, s) for s in entry.sources):
        return [raw / s.name for s in entry.sources]
    with explained(aside):
        aside.mkdir(parents=True, exist_ok=True)
        for source in entry.sources:
            if not _whole(aside / source.name, source):
                _bring(source, entry, aside, mirror, progress, timeout_s)
    with whole_folder(raw) as folder:
        for source in entry.sources:
            (aside / source.name).replace(folder / source.name)
    shutil.rmtree(aside)
    return [raw / s.name for s in entry.sources]


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _whole(file: Path, source: Source) -> bool:
    return file.is_file() and sha256_of(file) == source.sha256


def _bring(source: Source, entry: Entry, folder: Path, mirror: Path | None, progress: Progress, timeout_s: float) -> None:
    held = None if mirror is None else mirror / source.mirror_path
    if held is not None and held.is_file():
        _copy(source, held, folder, progress)
    elif source.address is not None:
        _download(source, source.address, folder, progress, timeout_s)
    else:
        looked = f"not in the mirror {mirror} (looked for {source.mirror_path})" if mirror else "no mirror was given"
        raise SourceError(
            f"{entry.name}: {source.name} has no address to fetch it from, and {looked}. Set ingest.mirror to a folder "
            f"that holds {source.mirror_path}; people find the data at {entry.homepage}"
        )


def _copy(source: Source, held: Path, folder: Path, progress: Progress) -> None:
    """Copy from a mirror, decompressed; both hashes are checked."""
    if source.mirror_sha256 and (found := sha256_of(held)) != source.mirror_sha256:
        raise SourceError(
            f"{held}: expected SHA-256 {source.mirror_sha256}, found {found}; the mirror's copy is damaged or another version. "
            f"Nothing was taken from it: fetch it into the mirror again, or run without a mirror"
        )
    part, total = folder / f"{source.name}.part", held.stat().st_size
    try:
        with held.open("rb") as packed, part.open("wb") as out:
            content = gzip.GzipFile(fileobj=packed) if held.suffix == ".gz" else packed
            while block := content.read(CHUNK_BYTES):
                out.write(block)
                progress(source.name, packed.tell(), total)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        part.unlink()
        raise SourceError(f"{held} is not a whole gzip file ({error}); fetch it into the mirror again") from error
    _accept(source, part, str(held))


def _download(source: Source, address: str, folder: Path, progress: Progress, timeout_s: float) -> None:
    """Stream a file to `.part`, from where an earlier attempt ended."""
    import httpx

    part = folder / f"{source.name}.part"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _stream(source, address, part, progress, timeout_s)
            break
        except httpx.TransportError as error:
            done = part.stat().st_size if part.exists() else 0
            if attempt == ATTEMPTS or isinstance(error, (httpx.UnsupportedProtocol, httpx.ConnectError)):
                raise SourceError(
                    f"{address} cannot be reached or broke off after {done} bytes ({error or type(error).__name__}). Check the "
                    f"connection and run again (it resumes), or set ingest.mirror to a folder that holds {source.mirror_path}"
                ) from error
    _accept(source, part, address)


def _stream(source: Source, address: str, part: Path, progress: Progress, timeout_s: float) -> None:
    done = part.stat().st_size if part.exists() else 0
    with _asked(address, done, timeout_s) as answer:
        if answer.status_code == 416:  # nothing after what is here: it is whole, or not this file
            return
        if answer.status_code not in (200, 206):
            raise SourceError(
                f"{address} answered {answer.status_code} {answer.reason_phrase}. Correct its address in the catalogue, or set "
                f"ingest.mirror to a folder that holds {source.mirror_path}"
            )
        done = done if answer.status_code == 206 else 0
        length = answer.headers.get("content-length")
        total = None if length is None else done + int(length)
        with part.open("ab" if done else "wb") as out:
            _drain(answer, out, lambda n: progress(source.name, n, total), done)


@contextmanager
def _asked(address: str, done: int, timeout_s: float) -> Iterator[httpx.Response]:
    import httpx

    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
    with httpx.stream("GET", address, headers=headers, timeout=timeout_s, follow_redirects=True) as answer:
        yield answer


def _drain(answer: httpx.Response, out: BinaryIO, tell: Callable[[int], None], done: int) -> None:
    for block in answer.iter_raw():  # as it arrives: what came before a break must be on disk
        out.write(block)
        done += len(block)
        tell(done)


def _accept(source: Source, part: Path, where: str) -> None:
    """Give a file its name once its bytes are right; wrong ones are removed, so that the next attempt starts anew."""
    if (found := sha256_of(part)) != source.sha256:
        part.unlink()
        raise SourceError(
            f"{where}: expected SHA-256 {source.sha256} for {source.name}, found {found}. The source changed, or was damaged on "
            f"the way: run again; if it stays so, ask its publisher before you change the catalogue"
        )
    part.replace(part.with_name(source.name))
