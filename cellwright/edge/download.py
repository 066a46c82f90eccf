"""Downloads that resume and are hashed as they arrive."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cellwright.bundle.manifest import Descriptor, check_digest
from cellwright.errors import BundleError, EdgeError, WorkspaceError

ATTEMPTS = 4  # in a row that bring next to nothing; each goes on where the one before broke off
PROGRESS_BYTES = 256 * 1024  # a connection that brought as much was worth it, and the count starts anew
_CHUNK_BYTES = 1 << 20
_PAUSE_S = 0.2


@dataclass(frozen=True)
class Transfer:
    """How the bytes of a blob were had."""

    received_bytes: int = 0
    resumed_bytes: int = 0
    reused_bytes: int = 0

    def __add__(self, other: Transfer) -> Transfer:
        return Transfer(
            self.received_bytes + other.received_bytes,
            self.resumed_bytes + other.resumed_bytes,
            self.reused_bytes + other.reused_bytes,
        )


class Download:
    """GET requests to one edge."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self._client, self.url = client, url

    def json(self, path: str, what: str) -> dict[str, Any]:
        """A small JSON object. Raises EdgeError."""
        content = self.document(path, 1 << 20, what)
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise EdgeError(f"{self.url}{path} answered no JSON object; is it a Cellwright edge?")
        return found

    def document(self, path: str, most_bytes: int, what: str = "") -> bytes:
        """A small file, whole.

        Raises:
            EdgeError: the edge cannot be reached or refuses.
            BundleError: it is larger than `most_bytes`.
        """
        content = bytearray()
        try:
            with self._client.stream("GET", path, headers={"Accept-Encoding": "identity"}) as response:
                self._refuse(response, what or path)
                for chunk in response.iter_raw(_CHUNK_BYTES):
                    content += chunk
                    if len(content) > most_bytes:
                        raise BundleError(f"{path}: more than {most_bytes} bytes, which no document of a bundle has")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return bytes(content)

    def blob(self, path: str, partial: Path, described: Descriptor, what: str, target: Path) -> Transfer:
        """Fetch a blob to `target` by way of `partial`, which is kept when the connection breaks.

        Raises:
            EdgeError: the connection broke `ATTEMPTS` times in a row without much progress.
            BundleError: the bytes are not those that the manifest names; they are thrown away.
            WorkspaceError: the disk is full.
        """
        with Arriving(partial, described, what) as arriving:
            resumed = arriving.size
            failures = 0
            while not arriving.complete:
                before = arriving.size
                try:
                    self._go_on(path, arriving)
                except httpx.HTTPError as error:
                    failures = 1 if arriving.size - before >= PROGRESS_BYTES else failures + 1
                    if failures == ATTEMPTS:
                        raise EdgeError(
                            f"the download of {what} broke off {ATTEMPTS} times ({error or type(error).__name__}); "
                            f"{arriving.size} of {described.size} bytes are there: run again to go on from there"
                        ) from error
                    time.sleep(_PAUSE_S * failures)
            arriving.finish(target)
        return Transfer(received_bytes=arriving.received, resumed_bytes=resumed)

    def _go_on(self, path: str, arriving: Arriving) -> None:
        headers = {"Accept-Encoding": "identity"}
        if arriving.size:
            headers |= {"Range": f"bytes={arriving.size}-", "If-Range": f'"{arriving.described.digest}"'}
        with self._client.stream("GET", path, headers=headers) as response:
            self._refuse(response, arriving.what)
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                arriving.restart()
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {arriving.size}-"):
                raise EdgeError(f"{self.url}{path} sent another range than was asked for; it cannot be resumed from there")
            for chunk in response.iter_raw():  # as it comes: what is held back to fill a chunk is lost when the line breaks
                arriving.add(chunk)
        if not arriving.complete:
            raise httpx.RemoteProtocolError("the edge sent less than it announced")

    def _refuse(self, response: httpx.Response, what: str) -> None:
        """Raises EdgeError where the status is not a success; the edge's own detail is passed on."""
        if response.is_success:
            return
        try:
            detail = str(json.loads(response.read()[:4096])["detail"])
        except (ValueError, KeyError, TypeError):
            detail = response.reason_phrase
        raise EdgeError(f"the edge at {self.url} refuses {what}: {response.status_code}, {detail[:500]}")

    def _unreachable(self, error: httpx.HTTPError) -> EdgeError:
        return EdgeError(
            f"cannot reach an edge at {self.url} ({error or type(error).__name__}); start one with `cellwright edge serve`"
        )


class Arriving:
    """A blob on its way: what is there is hashed once, what arrives as it is written."""

    def __init__(self, partial: Path, described: Descriptor, what: str) -> None:
        self.described, self.what = described, what
        self.size, self.received = 0, 0
        self._path = partial
        self._hash = hashlib.sha256()

    def __enter__(self) -> Arriving:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+b")
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            self._hash.update(chunk)
            self.size += len(chunk)
        if self.size > self.described.size:
            self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def complete(self) -> bool:
        return self.size == self.described.size

    def restart(self) -> None:
        """Forget what is there."""
        self._file.truncate(0)
        self._hash, self.size = hashlib.sha256(), 0

    def add(self, chunk: bytes) -> None:
        """Raises BundleError when more arrives than the manifest names, WorkspaceError when the disk is full."""
        if self.size + len(chunk) > self.described.size:
            self._path.unlink()
            raise BundleError(
                f"{self.what}: more than the {self.described.size} bytes that the manifest names; it was thrown away"
            )
        try:
            self._file.write(chunk)
        except OSError as error:
            raise WorkspaceError(
                f"cannot write {self._path} ({error.strerror}); free some space and run again to resume"
            ) from error
        self._hash.update(chunk)
        self.size += len(chunk)
        self.received += len(chunk)

    def finish(self, target: Path) -> None:
        """Move the whole blob to its place; raises BundleError, and throws it away, if its hash is another."""
        self._file.flush()
        try:
            check_digest(self._hash.hexdigest(), self.described.hex, self.what)
        except BundleError:
            self._path.unlink()
            raise
        os.fsync(self._file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path.replace(target)
