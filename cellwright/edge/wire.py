"""HTTP/1.1 over a plain socket, for large bodies: bytes go from the kernel into the caller's buffer without a copy between.

http.client parses the head; the body is read by `recv_into`. httpx costs four times as much CPU per byte, which one core cannot
afford at 4.3 Gbit/s with hashing beside it.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from cellwright.errors import BundleError, EdgeError, WrongUse

CONNECT_S, SILENCE_S = 5.0, 30.0  # longest wait for a connection, and for the next bytes
ATTEMPTS = 4  # in a row that bring next to nothing; each goes on where the one before broke off
BUSY = frozenset({429, 503})
_MOST_DETAIL_BYTES = 4096


class Broken(Exception):
    """A connection could not be made (`connected` is False), or broke off."""

    def __init__(self, why: str, *, connected: bool = True) -> None:
        super().__init__(why)
        self.connected = connected


class Refusal(EdgeError):
    """The server answered, and not with what was asked for."""

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after_s = status, retry_after_s


class Nonsense(EdgeError):
    """The server answered, and not in the form that the answer has."""


class Answer(Protocol):
    """An answer whose body is read as it comes."""

    status: int

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""

    def into(self, room: memoryview) -> int:
        """Read what is there, at least a byte, into `room`; 0 at the end of the body. Raises Broken."""


class Transport(Protocol):
    """Whoever can ask for a path: one server, or several that have the same files (route.py)."""

    @property
    def ttfb_s(self) -> float:
        """Shortest time between a request and the head of its answer; 0 where it is not known."""

    @property
    def url(self) -> str:
        """Whom it asks at the moment."""

    def get(self, path: str, headers: Mapping[str, str]) -> AbstractContextManager[Answer]:
        """Ask. Raises Broken."""

    @property
    def attempts(self) -> int:
        """How many in a row may bring nothing."""

    def recovers(self, error: Broken | Refusal, failures: int) -> bool:
        """Do what can be done about the failure (ask another server, renew leave), the how manieth in a row; whether to ask again."""

    def begin(self) -> None:
        """What comes from here on is judged together, by `distrust`."""

    def distrust(self, error: BundleError | Nonsense, *, leftover: bool = False) -> bool:
        """What came since `begin` is wrong (`leftover`: a part of it is from an earlier fetch). Whether to ask again."""

    def another(self) -> Transport | None:
        """A second connection to the same server, to be closed by the caller; None where one is all there is."""

    def close(self) -> None:
        """Close what is open."""


class Link:
    """One kept connection to one server, for one thread."""

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | bool = True) -> None:
        """Raises WrongUse: `url` is no http(s) address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise WrongUse(f"'{url}' is not an address: expected one like http://127.0.0.1:8080")
        self.url, self.headers = url.rstrip("/"), dict(headers or {})
        self.ttfb_s = 0.0  # shortest time between a request and the head of its answer; 0: none was asked yet
        self._tls, self._parts = tls, parts
        self._connection: http.client.HTTPConnection | None = None
        self._met = False  # whether it ever answered

    @contextmanager
    def get(self, path: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Ask; the connection is kept if the body was read to its end."""
        asked = time.perf_counter()
        answer = self._ask(path, {**self.headers, **headers})
        self._met = True
        took_s = time.perf_counter() - asked
        self.ttfb_s = min(self.ttfb_s or took_s, took_s)
        try:
            yield answer
        finally:
            if not answer.done:
                self.close()

    attempts = ATTEMPTS

    def recovers(self, error: Broken | Refusal, failures: int) -> bool:
        """What broke is tried again, and who is busy asked again; where nobody has ever answered, that is told at once."""
        return error.status in BUSY if isinstance(error, Refusal) else error.connected or self._met

    def begin(self) -> None:
        """Nothing: there is one server only."""

    def distrust(self, error: BundleError | Nonsense, *, leftover: bool = False) -> bool:
        """False: there is nobody else to ask."""
        return False

    def another(self) -> Link:
        """A connection of its own."""
        return Link(self.url, headers=self.headers, tls=self._tls)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """Break the connection from another thread: whoever reads from it gets Broken at once."""
        connection = self._connection
        if connection is not None and (used := connection.sock) is not None:
            with suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)

    def _ask(self, path: str, headers: Mapping[str, str]) -> _WireAnswer:
        kept = self._connection is not None
        try:
            return self._once(path, headers)
        except Broken:
            if not kept:
                raise
        return self._once(path, headers)  # the server had closed a connection that it no longer wanted to keep

    def _once(self, path: str, headers: Mapping[str, str]) -> _WireAnswer:
        connected = False
        try:
            connection = self._connection = self._connection or self._connect()
            connected = True
            connection.request("GET", f"{self._parts.path.rstrip('/')}{path}", headers=dict(headers))
            return _WireAnswer(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Broken(_why(error), connected=connected) from error

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = self._tls if isinstance(self._tls, ssl.SSLContext) else ssl.create_default_context()
            made: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
        else:
            made = http.client.HTTPConnection(host, port, timeout=CONNECT_S)
        made.connect()
        made.sock.settimeout(SILENCE_S)
        return made


class _WireAnswer:
    """One answer of a connection."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self._response = response.status, response
        self._left = response.length
        if self._left == 0:
            response.close()

    @property
    def done(self) -> bool:
        """Whether the body was read to its end."""
        return self._response.isclosed()

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    def into(self, room: memoryview) -> int:
        if self.done:
            return 0
        try:
            count = self._response.readinto(room) if self._left is None else self._direct(room[: self._left])
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Broken(str(error) or type(error).__name__) from error
        if self._left is not None:
            self._left -= count
            if count == 0:
                raise Broken("the edge sent less than it announced")
            if self._left == 0:
                self._response.close()
        return count

    def _direct(self, room: memoryview) -> int:
        """One read of the socket, straight into `room`: what waits for more is lost when the line breaks."""
        reader: Any = self._response.fp
        return int(reader.readinto1(room))


class Httpx:
    """A client of httpx as a transport, where there is one already (the hub's)."""

    ttfb_s = 0.0

    def __init__(self, client: httpx.Client, url: str) -> None:
        self.url, self._client = url, client

    @contextmanager
    def get(self, path: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Ask."""
        try:
            with self._client.stream("GET", path, headers=dict(headers)) as response:
                yield _HttpxAnswer(response)
        except httpx.HTTPError as error:
            raise Broken(str(error) or type(error).__name__, connected=not isinstance(error, httpx.ConnectError)) from error

    attempts = ATTEMPTS

    def recovers(self, error: Broken | Refusal, failures: int) -> bool:
        """What broke is tried again, and who is busy asked again."""
        return error.status in BUSY if isinstance(error, Refusal) else error.connected

    def begin(self) -> None:
        """Nothing: there is one server only."""

    def distrust(self, error: BundleError | Nonsense, *, leftover: bool = False) -> bool:
        """False: there is nobody else to ask."""
        return False

    def another(self) -> None:
        """None: the client belongs to somebody else."""
        return

    def close(self) -> None:
        """Nothing: the client belongs to somebody else."""


class _HttpxAnswer:
    def __init__(self, response: httpx.Response) -> None:
        self.status, self._response = response.status_code, response
        self._pieces, self._kept = response.iter_raw(), b""

    def header(self, name: str) -> str:
        return str(self._response.headers.get(name, ""))

    def into(self, room: memoryview) -> int:
        while not self._kept:
            try:
                piece = next(self._pieces, None)
            except httpx.HTTPError as error:
                raise Broken(str(error) or type(error).__name__) from error
            if piece is None:
                return 0
            self._kept = piece
        count = min(len(room), len(self._kept))
        room[:count], self._kept = self._kept[:count], self._kept[count:]
        return count


def refuse(answer: Answer, url: str, what: str) -> None:
    """Raises Refusal where the status is not a success; the server's own detail is passed on."""
    if 200 <= answer.status < 300:
        return
    try:
        detail = str(json.loads(_detail(answer))["detail"])
    except (ValueError, KeyError, TypeError, Broken):
        detail = http.client.responses.get(answer.status, "no reason given")
    wait = answer.header("Retry-After")
    raise Refusal(
        f"the edge at {url} refuses {what}: {answer.status}, {detail[:500]}",
        answer.status,
        float(wait) if wait.isdigit() else None,
    )


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}; name the authority that signed it (--ca)"
    return str(error) or type(error).__name__


def _detail(answer: Answer) -> bytes:
    room = memoryview(bytearray(_MOST_DETAIL_BYTES))
    filled = 0
    while filled < len(room) and (count := answer.into(room[filled:])):
        filled += count
    return bytes(room[:filled])
