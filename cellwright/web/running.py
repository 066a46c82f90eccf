"""Run an API on uvicorn: until a signal ends it, or in a thread beside other work. TLS, unless nobody else can connect."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cellwright.errors import CellwrightError, WrongUse

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger(__name__)
_START_S = 30.0
_OTHER_FILES = 256  # of the database, blobs and uploads
_STALLED_S = 60.0  # for a part of an answer (1 MiB at most) to be taken
_HEADERS_S = 10.0  # for the head of a request, from its first byte or the connection's beginning


@dataclass(frozen=True)
class Listening:
    """Where an API listens, and how. `insecure`: to others without TLS, on purpose."""

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    together: int = 256  # connections at once; more are told to come back
    options: str = "--tls-cert and --tls-key"  # how certificate and key are given on the command line, for messages


@dataclass(frozen=True)
class Service:
    """What is run, and how its errors are called."""

    app: ASGIApp
    name: str  # "the hub"
    error: type[CellwrightError]
    in_the_open: str = "tokens and models"  # what would cross the network unencrypted
    on_stop: Callable[[], None] = lambda: None  # when it is told to stop: ends requests that would wait for long


class Server(uvicorn.Server):
    """Tells the service when it is to stop; running requests are then waited for."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let requests end."""
        self._on_stop()
        await super().shutdown(sockets)


class Impatient(H11Protocol):
    """HTTP/1.1 that closes a connection whose request does not come to the end of its headers (slow loris)."""

    def connection_made(self, transport: Any) -> None:
        """The clock starts with the connection."""
        super().connection_made(transport)
        self._arm()

    def on_response_complete(self) -> None:
        """And again with each request after the first; between them the keep-alive timeout holds too."""
        super().on_response_complete()
        self._arm()

    def pause_writing(self) -> None:
        """What is to be sent piles up: whoever does not take it in time is cut off (a slow reader holds a connection too)."""
        super().pause_writing()
        self._stalled = self.loop.call_later(_STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It was taken."""
        self._stalled.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        self._late.cancel()
        if hasattr(self, "_stalled"):
            self._stalled.cancel()
        super().connection_lost(exc)

    def _arm(self) -> None:
        if hasattr(self, "_late"):
            self._late.cancel()
        self._late: asyncio.TimerHandle = self.loop.call_later(_HEADERS_S, self._close_late)

    def _close_late(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy and not self.transport.is_closing():
            self.transport.close()


def serve(service: Service, where: Listening, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Answer until SIGINT or SIGTERM; `on_ready` is given the URL once the port is open.

    Raises:
        WrongUse: an address that others reach without TLS, half of a certificate and key, or either unreadable.
        CellwrightError: of the service's kind; the port is taken.
    """
    _allow_files(where.together)
    server, listening, url = _server(service, where)
    if on_ready:
        on_ready(url)
    with listening:
        server.run(sockets=[listening])


@contextmanager
def in_thread(service: Service, where: Listening) -> Iterator[str]:
    """Answer in a thread of its own while the block runs; yields the URL. Raises as `serve`."""
    server, listening, url = _server(service, where)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name=service.name, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_S
    try:
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise service.error(f"{service.name} at {url} did not start; the log says why")
            time.sleep(0.01)
        yield url
    finally:
        server.should_exit = True
        thread.join(timeout=_START_S)
        listening.close()


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address; a name is looked up, and all that it stands for must be."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise WrongUse(f"cannot listen on '{host}' ({error}); name an address of this machine") from error
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def _allow_files(connections: int) -> None:
    """Raise this process's limit of open files to what so many connections need, as far as the system lets it."""
    wanted = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    if resource.RLIM_INFINITY != hard < wanted:
        log.warning("the system allows %d open files, %d connections need %d; raise it (ulimit -Hn)", hard, connections, wanted)


def _server(service: Service, where: Listening) -> tuple[uvicorn.Server, socket.socket, str]:
    tls = tls_of(where)
    if tls is None and not where.insecure and not is_loopback(where.host):
        raise WrongUse(
            f"{service.in_the_open} would cross the network in the open on {where.host}; give {where.options}, or bind to 127.0.0.1"
        )
    listening = _listening(service, where)
    config = uvicorn.Config(
        service.app,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        http=Impatient,
        limit_concurrency=where.together,
        timeout_graceful_shutdown=10,
        ssl_context_factory=(lambda _config, _default: tls) if tls else None,
    )
    named = f"[{where.host}]" if ":" in where.host else where.host
    return Server(config, service.on_stop), listening, f"{'https' if tls else 'http'}://{named}:{listening.getsockname()[1]}"


def _listening(service: Service, where: Listening) -> socket.socket:
    try:
        family = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((where.host, where.port), family=family, backlog=512)
    except OSError as error:
        raise service.error(
            f"cannot listen on {where.host}:{where.port} ({error.strerror}); stop what uses it, or choose another port"
        ) from error


def tls_of(where: Listening) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with a certificate chain and its key, in PEM; None where neither is given. Raises WrongUse."""
    if where.certificate is None and where.key is None:
        return None
    if where.certificate is None or where.key is None:
        raise WrongUse(f"TLS needs a certificate and its key: give both {where.options}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(where.certificate, where.key)
    except (OSError, ssl.SSLError) as error:
        raise WrongUse(f"{where.certificate} and {where.key} are no certificate with its key in PEM ({error})") from error
    return context
