"""Run the API on uvicorn: until a signal ends it, or in a thread beside other work. TLS, unless nobody else can connect."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from cellwright.errors import FederationError, WrongUse
from cellwright.federation.management.api import create_app
from cellwright.federation.management.service import Fmlms

_START_S = 30.0
_TOGETHER = 256  # requests answered at once; more are told to come back


def serve(
    service: Fmlms,
    host: str,
    port: int,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Answer until SIGINT or SIGTERM; `on_ready` is given the URL once the port is open.

    Raises:
        WrongUse: an address that others reach without TLS, half of a certificate and key, or either unreadable.
        FederationError: the port is taken.
    """
    server, listening, url = _server(service, host, port, certificate, key)
    if on_ready:
        on_ready(url)
    with listening:
        server.run(sockets=[listening])


@contextmanager
def in_thread(
    service: Fmlms, host: str = "127.0.0.1", port: int = 0, *, certificate: Path | None = None, key: Path | None = None
) -> Iterator[str]:
    """Answer in a thread of its own while the block runs; yields the URL.

    Raises:
        WrongUse, FederationError: as `serve`.
    """
    server, listening, url = _server(service, host, port, certificate, key)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="fmlms", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_S
    try:
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise FederationError(f"the management API at {url} did not start; the log says why")
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


def _server(
    service: Fmlms, host: str, port: int, certificate: Path | None, key: Path | None
) -> tuple[uvicorn.Server, socket.socket, str]:
    tls = _tls(certificate, key)
    if tls is None and not is_loopback(host):
        raise WrongUse(
            f"tokens and models would cross the network in the open on {host}; give --cert and --key, or bind to 127.0.0.1"
        )
    listening = _listening(host, port)
    config = uvicorn.Config(
        create_app(service),
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_TOGETHER,
        timeout_graceful_shutdown=10,
        ssl_context_factory=(lambda _config, _default: tls) if tls else None,
    )
    named = f"[{host}]" if ":" in host else host
    return uvicorn.Server(config), listening, f"{'https' if tls else 'http'}://{named}:{listening.getsockname()[1]}"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise FederationError(
            f"cannot listen on {host}:{port} ({error.strerror}); stop what uses it, or choose another port"
        ) from error


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise WrongUse("TLS needs a certificate and its key: give both --cert and --key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise WrongUse(f"{certificate} and {key} are no certificate with its key in PEM ({error})") from error
    return context
