"""Run the FMLMS's API: until a signal ends it, or in a thread beside other work. TLS, unless nobody else can connect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cellwright.errors import FederationError
from cellwright.federation.management.api import create_app
from cellwright.federation.management.service import Fmlms
from cellwright.web import running
from cellwright.web.running import Listening, Service, is_loopback

__all__ = ["in_thread", "is_loopback", "serve"]


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
    running.serve(_app(service), _where(host, port, certificate, key), on_ready=on_ready)


@contextmanager
def in_thread(
    service: Fmlms, host: str = "127.0.0.1", port: int = 0, *, certificate: Path | None = None, key: Path | None = None
) -> Iterator[str]:
    """Answer in a thread of its own while the block runs; yields the URL.

    Raises:
        WrongUse, FederationError: as `serve`.
    """
    with running.in_thread(_app(service), _where(host, port, certificate, key)) as url:
        yield url


def _app(service: Fmlms) -> Service:
    return Service(create_app(service), "the management API", FederationError)


def _where(host: str, port: int, certificate: Path | None, key: Path | None) -> Listening:
    return Listening(host, port, certificate, key, options="--cert and --key")
