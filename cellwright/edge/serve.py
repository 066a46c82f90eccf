"""Ways to run an edge server: as a command, until a signal ends it, or in a thread beside other work."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from cellwright.bundle.keys import trusted
from cellwright.edge.acceleration import NetworkAccess
from cellwright.edge.access_log import to_stdout
from cellwright.edge.agent import Hub, Pace
from cellwright.edge.connections import Patience
from cellwright.edge.library import Keeping
from cellwright.edge.predictor import Precision
from cellwright.edge.server import DEFAULT_PORT, Edge, Limits, tls_context
from cellwright.errors import WrongUse
from cellwright.web import standing
from cellwright.workspace import Workspace


def serve(
    ws: Workspace,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    insecure: bool = False,
    trust: tuple[Path, ...] = (),
    precision: Precision = "fp32",
    limits: Limits | None = None,
    behind_nginx: bool = False,
    access_log: bool = False,
    hub: Hub | None = None,
    keeping: Keeping | None = None,
    pace: Pace | None = None,
    patience: Patience | None = None,
    network: NetworkAccess | None = None,
    truth_token: str | None = None,
    metrics_token: str | None = None,
    on_ready: Callable[[Edge], None] | None = None,
) -> None:
    """Serve what is published until SIGINT or SIGTERM; running requests are finished first.

    `trust`: public keys besides the workspace's own. `hub`: whom to ask what to hold for tenants, within `keeping`; `network`: whom to
    ask for quality of service when a device arrives. `on_ready` is called once the port is open.

    Raises:
        EdgeError: the port is taken.
        WrongUse: an open address without TLS, or half of a certificate and key.
    """
    tls = _tls(tls_certificate, tls_key)
    edge = Edge(
        ws.published,
        trusted(ws.keys, *trust),
        host=host,
        port=port,
        tls=tls,
        insecure=insecure,
        precision=precision,
        limits=limits,
        behind_nginx=behind_nginx,
        access_log=access_log,
        hub=hub,
        keeping=keeping,
        pace=pace,
        patience=patience,
        network=network,
        truth_token=truth_token,
        metrics_token=metrics_token,
    )
    if access_log:
        to_stdout()
    standing.run(standing.until_signal(edge, on_ready))


def in_thread(edge: Edge) -> AbstractContextManager[Edge]:
    """Serve in a thread of its own while the block runs.

    Raises:
        EdgeError: the port is taken.
    """
    return standing.in_thread(edge, "edge")


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise WrongUse("--tls-cert and --tls-key belong together; give both")
    return tls_context(certificate, key)
