"""Connections of clients that are slow on purpose (slow loris) or too many.

head        must be whole `head_s` after its first byte (one begun behind a whole request: `idle_s`), and the first one after the
            connection was made; else 408 and the end
body        has a time of its own where one is read (bodies.py, forecasting.py)
answer      a client that takes nothing for `silence_s` is cut off by the kernel (TCP_USER_TIMEOUT), during sendfile too
idle        a kept connection is closed after `idle_s`
number      beyond `most`, or `most_per_client` of one address: 503 and the end, before anything is read
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
_REFUSAL = "HTTP/1.1 {status}\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Patience:
    """How long a client may take, and how many there may be."""

    head_s: float = 10.0
    silence_s: float = 30.0
    idle_s: float = 75.0
    most: int = 10_000
    most_per_client: int = 1_024  # of one address; 0: no limit (behind a proxy all have the same)


class Connections:
    """All connections of one server; makes the protocol of each."""

    def __init__(self, server: web.Server, patience: Patience) -> None:
        self.server, self.patience = server, patience
        self.open, self._by_client = 0, Counter[str]()

    def __call__(self) -> RequestHandler:
        """A protocol for the next connection."""
        return _Patient(self, loop=asyncio.get_running_loop(), **self.server._kwargs)

    def came(self, client: str) -> bool:
        """Count one more; False: it is one too many."""
        most = self.patience.most_per_client
        if self.open >= self.patience.most or (most and self._by_client[client] >= most):
            return False
        self.open += 1
        self._by_client[client] += 1
        return True

    def went(self, client: str) -> None:
        """Count one less."""
        self.open -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]


class _Patient(RequestHandler):
    """aiohttp's own protocol, with a deadline for each request's head."""

    __slots__ = ("_all", "_client", "_counted", "_deadline")

    def __init__(self, connections: Connections, *, loop: asyncio.AbstractEventLoop, **how: Any) -> None:
        super().__init__(connections.server, loop=loop, **how)
        self._all, self._client, self._counted = connections, "", False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = str((transport.get_extra_info("peername") or ("",))[0])
        self._counted = self._all.came(self._client)
        if not self._counted:
            _refuse(cast("asyncio.WriteTransport", transport), "503 Service Unavailable")
            return
        used = transport.get_extra_info("socket")
        if used is not None and _TCP_USER_TIMEOUT is not None and used.family in (socket.AF_INET, socket.AF_INET6):
            used.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(self._all.patience.silence_s * 1000))
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if not self._counted:
            return
        super().data_received(data)
        if not self._busy:
            if self._deadline is None:
                self._expect_head()
        elif self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._counted:
            self._counted = False
            self._all.went(self._client)
            super().connection_lost(exc)

    @property
    def _busy(self) -> bool:
        """Whether a request's head is here, and its answer is not finished."""
        return bool(self._messages) or self._current_request is not None

    def _expect_head(self) -> None:
        self._deadline = self._loop.call_later(self._all.patience.head_s, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport is not None and not self._busy:
            _refuse(self.transport, "408 Request Timeout")


def _refuse(transport: asyncio.WriteTransport, status: str) -> None:
    transport.write(_REFUSAL.format(status=status).encode())
    transport.close()


class Site(web.TCPSite):
    """A listening port whose connections are counted and timed."""

    __slots__ = ("_patience", "connections")

    def __init__(self, runner: web.AppRunner, host: str, port: int, *, patience: Patience, **more: Any) -> None:
        super().__init__(runner, host, port, **more)
        self._patience = patience

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await web.BaseSite.start(self)
        server = self._runner.server
        assert isinstance(server, web.Server)
        self.connections = Connections(server, self._patience)
        self._server = await asyncio.get_running_loop().create_server(
            self.connections, self._host, self._port, ssl=self._ssl_context, backlog=self._backlog
        )
