"""Downloads that resume and are hashed as they arrive."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cellwright.bundle.manifest import Descriptor
from cellwright.edge.arriving import Arriving
from cellwright.edge.ranges import STREAMS, Pace, Ranges
from cellwright.edge.wire import Answer, Broken, Httpx, Nonsense, Refusal, Transport, refuse
from cellwright.errors import BundleError, EdgeError

PROGRESS_BYTES = 256 * 1024  # a connection that brought as much was worth it, and the count starts anew
_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_PLAIN = {"Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Transfer:
    """How the bytes of a blob were had."""

    received_bytes: int = 0
    resumed_bytes: int = 0  # left by an earlier fetch
    reused_bytes: int = 0  # held already, by this or another version
    stored_s: float = 0.0  # spent in writing and synchronising

    def __add__(self, other: Transfer) -> Transfer:
        return Transfer(
            self.received_bytes + other.received_bytes,
            self.resumed_bytes + other.resumed_bytes,
            self.reused_bytes + other.reused_bytes,
            self.stored_s + other.stored_s,
        )


class Download:
    """GET requests by one transport: to one server, or to several that have the same files."""

    def __init__(self, client: Transport | httpx.Client, url: str = "") -> None:
        self._transport: Transport = Httpx(client, url) if isinstance(client, httpx.Client) else client
        self.streams = 1  # most connections that were used at once
        self._received_bytes = 0  # by what is over
        self._arriving: Arriving | None = None  # what is on its way

    @property
    def url(self) -> str:
        """Whom it asks at the moment."""
        return self._transport.url

    @property
    def received_bytes(self) -> int:
        """Over the network so far, of use or not; from any thread."""
        arriving = self._arriving
        return self._received_bytes + (arriving.received if arriving else 0)

    def json(self, path: str, what: str) -> dict[str, Any]:
        """A small JSON object. Raises EdgeError."""
        content = self.document(path, 1 << 20, what)
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Nonsense(f"{self.url}{path} answered no JSON object; is it a Cellwright edge?")
        return found

    def document(self, path: str, most_bytes: int, what: str = "") -> bytes:
        """A small file, whole.

        Raises:
            EdgeError: the edge cannot be reached or refuses.
            BundleError: it is larger than `most_bytes`.
        """
        failures = 0
        while True:
            try:
                return self._document(path, most_bytes, what)
            except (Broken, Refusal) as error:
                failures += 1
                if not self._again(error, failures):
                    raise self._given_up(error) from error

    def blob(
        self, path: str, partial: Path | None, described: Descriptor, what: str, target: Path | None, *, again: bool = True
    ) -> Transfer:
        """Fetch a blob to `target` by way of `partial`, which is kept when the connection breaks. None: hashed and forgotten.

        Wrong bytes are thrown away, and asked for again where the transport knows somebody else to ask (unless `again` is False).

        Raises:
            EdgeError: the connection broke `attempts` times in a row without much progress.
            BundleError: the bytes are not those that the manifest names, and nobody else is left to ask.
            WorkspaceError: the disk is full.
        """
        wasted = Transfer()
        while True:
            self._transport.begin()
            arriving = self._arriving = Arriving(partial, described, what)
            try:
                return self._arrived(path, arriving, target) + wasted
            except (BundleError, Nonsense) as error:
                arriving.throw_away()
                wasted += Transfer(arriving.received, stored_s=arriving.stored_s)
                if not again or not self._transport.distrust(error, leftover=arriving.resumed > 0):
                    raise
            finally:
                self._received_bytes, self._arriving = self._received_bytes + arriving.received, None

    def _arrived(self, path: str, arriving: Arriving, target: Path | None) -> Transfer:
        with arriving:
            failures = 0
            pace = Pace(arriving.described.size, self._transport.ttfb_s)
            while not arriving.complete:
                before = arriving.size
                try:
                    self._go_on(path, arriving, pace)
                except (Broken, Refusal) as error:
                    failures = 1 if arriving.size - before >= PROGRESS_BYTES else failures + 1
                    if not self._again(error, failures):
                        raise self._broken_off(error, arriving, failures) from error
            arriving.finish(target)
        return Transfer(arriving.received, arriving.resumed, stored_s=arriving.stored_s)

    def describe(self, path: str, kind: str, what: str) -> Descriptor | None:
        """A blob that is not named by its hash, from its first byte's headers; None: there is none. Raises EdgeError."""
        try:
            with self._transport.get(path, {**_PLAIN, "Range": "bytes=0-0"}) as answer:
                if answer.status in (404, 410):
                    return None
                refuse(answer, self.url, what)
                return _described(answer, kind)
        except Broken as error:
            raise self._given_up(error) from error

    def _go_on(self, path: str, arriving: Arriving, pace: Pace) -> None:
        """One connection, or several once it is seen that they may pay."""
        if pace.enabled and pace.rate_bytes_s:
            pace.enabled = self._several(path, arriving, pace.rate_bytes_s)
            return
        headers = dict(_PLAIN)
        if arriving.size:
            headers |= {"Range": f"bytes={arriving.size}-", "If-Range": f'"{arriving.described.digest}"'}
        with self._transport.get(path, headers) as answer:
            refuse(answer, self.url, arriving.what)
            if answer.status != 206:
                arriving.restart()
            elif not answer.header("Content-Range").startswith(f"bytes {arriving.size}-"):
                raise Nonsense(f"{self.url}{path} sent another range than was asked for; it cannot be resumed from there")
            arriving.receive(answer, pace.several)
        if not arriving.complete and not pace.rate_bytes_s:
            raise Broken("the edge sent less than it announced")

    def _several(self, path: str, arriving: Arriving, alone_bytes_s: float) -> bool:
        transports = [one for _ in range(STREAMS) if (one := self._transport.another()) is not None]
        if not transports:
            return False
        self.streams = max(self.streams, len(transports))
        try:
            return Ranges(transports, path, arriving, alone_bytes_s).run()
        finally:
            for one in transports:
                one.close()

    def _document(self, path: str, most_bytes: int, what: str) -> bytes:
        content, room = bytearray(), memoryview(bytearray(1 << 16))
        with self._transport.get(path, _PLAIN) as answer:
            refuse(answer, self.url, what or path)
            while count := answer.into(room):
                content += room[:count]
                if len(content) > most_bytes:
                    raise BundleError(f"{path}: more than {most_bytes} bytes, which no document of a bundle has")
        self._received_bytes += len(content)
        return bytes(content)

    def _again(self, error: Broken | Refusal, failures: int) -> bool:
        """Whether to try once more, after a pause."""
        if failures >= self._transport.attempts or not self._transport.recovers(error, failures):
            return False
        asked_s = error.retry_after_s if isinstance(error, Refusal) else None
        time.sleep(min(_LONGEST_PAUSE_S, _PAUSE_S * failures if asked_s is None else asked_s))
        return True

    def _given_up(self, error: Broken | Refusal) -> EdgeError:
        if isinstance(error, Refusal):
            return error
        return EdgeError(f"cannot reach an edge at {self.url} ({error}); start one with `cellwright edge serve`")

    def _broken_off(self, error: Broken | Refusal, arriving: Arriving, failures: int) -> EdgeError:
        if isinstance(error, Refusal):
            return error
        return EdgeError(
            f"the download of {arriving.what} broke off {failures} times ({error}); "
            f"{arriving.size} of {arriving.described.size} bytes are there: run again to go on from there"
        )


def _described(answer: Answer, kind: str) -> Descriptor | None:
    """From `ETag: "sha256:…"` and `Content-Range: bytes 0-0/<size>`; None where they are not of this form."""
    size = answer.header("Content-Range").rpartition("/")[2]
    try:
        return Descriptor(mediaType=kind, digest=answer.header("ETag").strip('"'), size=int(size))
    except ValueError:
        return None
