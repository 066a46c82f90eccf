"""Where the network's notifications arrive: each session has an address and a bearer token of its own.

`Sink` judges one notification and is free of any server, so that a service can mount it on its own; `SinkServer` is a small server for
who has none. The standard allows https addresses only: give it a certificate, or an address that a proxy with one leads here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any, Self

from pydantic import ValidationError

from cellwright.qos.forms import FROM_OUTSIDE, CloudEvent, SinkCredential

MOST_BYTES = 64 * 1024
CONTENT_TYPE = "application/cloudevents+json"
_REMEMBERED = 64  # events of a session whose ids are kept, to know a repeated delivery
_TOKEN_LASTS = timedelta(days=1)
_TOGETHER = 64
Deliver = Callable[[CloudEvent], None]


@dataclass(frozen=True)
class Address:
    """Where and under which credential the network delivers the events of one session."""

    ref: str
    url: str
    credential: SinkCredential


@dataclass
class _Box:
    token_hash: bytes
    deliver: Deliver
    seen: deque[tuple[str, str]]


class Sink:
    """Open addresses and what they lead to. `url`: what the network sees before `/<ref>`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._boxes: dict[str, _Box] = {}
        self._lock = threading.Lock()

    def open(self, deliver: Deliver, lasts: timedelta = _TOKEN_LASTS) -> Address:
        """A new address; `deliver` is called once for each event that arrives there."""
        ref, token = secrets.token_urlsafe(16), secrets.token_urlsafe(32)
        with self._lock:
            self._boxes[ref] = _Box(_hash(token), deliver, deque(maxlen=_REMEMBERED))
        expires = (datetime.now(UTC) + lasts).replace(microsecond=0)
        return Address(ref, f"{self.url}/{ref}", SinkCredential(access_token=token, access_token_expires_utc=expires))

    def close(self, ref: str) -> None:
        """Close an address; later events are answered with 410, which tells the network to stop."""
        with self._lock:
            self._boxes.pop(ref, None)

    def receive(self, ref: str, authorization: str, content_type: str, body: bytes) -> int:
        """Judge one POST; the status to answer: 204, or why not (400, 401, 410, 413)."""
        with self._lock:
            box = self._boxes.get(ref)
        known = hmac.compare_digest(box.token_hash if box else _hash(""), _hash(authorization.removeprefix("Bearer ")))
        if box is None:
            return HTTPStatus.GONE
        if not known or not authorization.startswith("Bearer "):
            return HTTPStatus.UNAUTHORIZED
        if len(body) > MOST_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
            return HTTPStatus.BAD_REQUEST
        try:
            event = CloudEvent.model_validate(json.loads(body), context=FROM_OUTSIDE)
        except (ValueError, ValidationError, RecursionError):
            return HTTPStatus.BAD_REQUEST
        if self._first(box, event):
            box.deliver(event)
        return HTTPStatus.NO_CONTENT

    def _first(self, box: _Box, event: CloudEvent) -> bool:
        with self._lock:
            key = (event.source, event.id)
            if key in box.seen:
                return False
            box.seen.append(key)
            return True


class SinkServer:
    """`with SinkServer() as server:` listens in threads of its own; `server.sink` is where sessions get their addresses."""

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None, public_url: str | None = None
    ) -> None:
        """`public_url`: how the network reaches it, where that is not the address it listens on."""
        self._server = _Bounded((host, port), _Handler)
        self._server.tls = tls
        scheme = "https" if tls else "http"
        self.sink = Sink(public_url or f"{scheme}://{host}:{self._server.server_port}/qos/events")
        self._server.sink = self.sink
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="qos-sink", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Bounded(ThreadingHTTPServer):
    """At most `_TOGETHER` requests at once; one more is closed unanswered and comes again."""

    daemon_threads = True
    request_queue_size = 128
    sink: Sink
    tls: ssl.SSLContext | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._slots = threading.BoundedSemaphore(_TOGETHER)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the request's own thread: a slow handshake holds up nobody else."""
        request.settimeout(_Handler.timeout)
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        try:
            wrapped = self.tls.wrap_socket(request, server_side=True)
        except OSError:  # who spoke no TLS, or left, is told nothing
            return
        with wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke; the network delivers again."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 10.0
    protocol_version = "HTTP/1.1"
    server: _Bounded

    def do_POST(self) -> None:
        """A notification."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length) or int(length) > MOST_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length.isdigit() else HTTPStatus.LENGTH_REQUIRED)
            return
        body = self.rfile.read(int(length))
        ref = self.path.rpartition("/")[2]
        asked = (self.headers.get("Authorization", ""), self.headers.get("Content-Type", ""))
        self._answer(self.server.sink.receive(ref, *asked, body))

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", "0")
        if status >= HTTPStatus.BAD_REQUEST:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Notifications are the session's to tell of, not stderr's."""


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
