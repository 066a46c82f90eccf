"""Blobs by their SHA-256: on disk by default, else anywhere that fsspec reaches (s3://bucket/prefix).

A blob appears whole (written aside, forced to the disk, renamed), and putting one that is there already does the same work again: how
long it takes tells nobody whether another tenant has the same bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from cellwright.errors import HubError, WrongUse
from cellwright.files import explained

CHUNK_BYTES = 1 << 20


class Blobs(Protocol):
    """Where the bytes of all releases lie."""

    def put(self, sha256: str, source: Path) -> None:
        """Keep a file's bytes; `source` is given away. Its hash was checked by whoever calls."""

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Bytes [start, stop). Raises HubError where the blob is not there."""

    def delete(self, sha256: str) -> None:
        """Forget a blob; one that is not there is forgotten already."""

    def known(self) -> Iterator[str]:
        """All blobs."""

    def check(self) -> None:
        """Raises HubError where the place cannot be used."""


class Disk:
    """A folder: <first two digits>/<hash>."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, sha256: str, source: Path) -> None:
        """Rename it into its place; where it lies on another disk, or must be kept for others, copy it first."""
        target = self._path(sha256)
        with explained(target):
            target.parent.mkdir(exist_ok=True)
            if source.stat().st_dev != target.parent.stat().st_dev:
                aside = target.with_name(f".{sha256}.{os.getpid()}")
                shutil.copyfile(source, aside)
                source = aside
            _force(source)
            source.replace(target)
            _force(target.parent)

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Opened at once, so that a missing blob is known before the first byte is sent."""
        try:
            file = self._path(sha256).open("rb")
        except FileNotFoundError:
            raise HubError(f"blob {sha256[:12]}… is not on the disk of the hub; restore it from a backup") from None
        return _parts(file, start, stop)

    def delete(self, sha256: str) -> None:
        """Unlink it."""
        self._path(sha256).unlink(missing_ok=True)

    def known(self) -> Iterator[str]:
        """Every blob's hash."""
        return (path.name for path in self.folder.glob("[0-9a-f][0-9a-f]/*") if not path.name.startswith("."))

    def check(self) -> None:
        """The folder is there and can be written."""
        if not os.access(self.folder, os.W_OK):
            raise HubError(f"the folder of blobs {self.folder} is not there or not writable")

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256


class Remote:
    """A place that fsspec reaches, by URL."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise WrongUse(f"hub.blobs: '{url}' cannot be used ({error}); for s3:// install cellwright[s3]") from error
        self.url = url

    def put(self, sha256: str, source: Path) -> None:
        """Upload it; object stores show an object when it is whole."""
        with self._explained():
            self._fs.put_file(str(source), self._path(sha256))
        source.unlink()

    def read(self, sha256: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Opened at once, as on disk."""
        with self._explained():
            try:
                file = self._fs.open(self._path(sha256), "rb", block_size=4 * CHUNK_BYTES)
            except FileNotFoundError:
                raise HubError(f"blob {sha256[:12]}… is not at {self.url}; restore it from a backup") from None
        return _parts(file, start, stop)

    def delete(self, sha256: str) -> None:
        """Delete the object."""
        with self._explained():
            if self._fs.exists(self._path(sha256)):
                self._fs.rm_file(self._path(sha256))

    def known(self) -> Iterator[str]:
        """Every object's hash."""
        self._fs.invalidate_cache()
        with self._explained():
            return iter([path.rpartition("/")[2] for path in self._fs.find(self._root)])

    def check(self) -> None:
        """The place can be listed."""
        self._fs.invalidate_cache()
        with self._explained():
            self._fs.exists(self._path("0" * 64))

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _explained(self) -> _Explained:
        return _Explained(self.url)


class _Explained:
    """Turns what a file system's driver says into a HubError; each driver has errors of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, HubError):
            raise HubError(f"the blobs at {self._url} cannot be reached ({type(error).__name__}: {str(error)[:200]})") from error


def open_blobs(place: str) -> Blobs:
    """Blobs in a folder or at a URL with a scheme. Raises WrongUse, HubError."""
    blobs: Blobs = (
        Remote(place) if "://" in place and not place.startswith("file://") else Disk(Path(place.removeprefix("file://")))
    )
    blobs.check()
    return blobs


def _parts(file: Any, start: int, stop: int | None) -> Iterator[bytes]:
    with file:
        file.seek(start)
        left = None if stop is None else stop - start
        while left is None or left > 0:
            chunk = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if not chunk:
                return
            left = None if left is None else left - len(chunk)
            yield chunk


def _force(path: Path) -> None:
    """Force a file's or a folder's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
