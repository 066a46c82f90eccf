"""An edge server as section `edge` of params.yaml says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cellwright.edge.acceleration import NetworkAccess
from cellwright.edge.agent import Hub, Pace
from cellwright.edge.connections import Patience
from cellwright.edge.library import Keeping
from cellwright.edge.params import EdgeParams
from cellwright.edge.serve import serve
from cellwright.edge.server import Edge, Limits
from cellwright.errors import UnknownName, WrongUse
from cellwright.families import members
from cellwright.hub.contract import Location
from cellwright.workspace import Workspace

_POLICIES = "cellwright.edge.eviction"
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (known here to be nobody's address)


def serve_as(params: EdgeParams, ws: Workspace, on_ready: Callable[[Edge], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM. Paths that are not absolute are the project's.

    Raises:
        UnknownName: an eviction policy that does not exist.
        WrongUse: half of what a hub, a network or TLS needs; a token that cannot be read.
        EdgeError: the port is taken.
    """
    p, below = params, _below(ws)
    if p.eviction not in members(_POLICIES):
        raise UnknownName("eviction policy", p.eviction, members(_POLICIES))
    serve(
        ws,
        p.host,
        p.port,
        tls_certificate=below(p.tls_certificate),
        tls_key=below(p.tls_key),
        insecure=p.insecure,
        trust=tuple(ws.root / key for key in p.trust),
        precision=p.precision,
        limits=limits(p),
        patience=patience(p),
        keeping=Keeping(int(p.disk_gb * 1e9), p.eviction, p.linger_s),
        pace=Pace(beat_s=p.heartbeat_s, parallel=p.pulls),
        hub=_hub(p, ws),
        network=_network(p, ws),
        behind_nginx=p.behind_nginx,
        access_log=p.access_log,
        truth_token=None if p.truth_token_file is None else read_token(ws.root / p.truth_token_file),
        metrics_token=None if p.metrics_token_file is None else read_token(ws.root / p.metrics_token_file),
        on_ready=on_ready,
    )


def limits(p: EdgeParams) -> Limits:
    """What it takes on at once."""
    return Limits(p.workers, p.queue, p.batch_ms / 1e3, p.body_bytes, p.look_s, p.shutdown_s, p.senders)


def patience(p: EdgeParams) -> Patience:
    """How long clients may take, and how many there may be."""
    return Patience(p.head_s, p.silence_s, p.idle_s, p.connections, p.connections_per_client)


def read_token(path: Path) -> str:
    """A token from a file. Raises WrongUse."""
    try:
        found = path.read_text().strip()
    except OSError as error:
        raise WrongUse(f"cannot read the token in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise WrongUse(f"{path} holds no text; expected a token") from None
    if not found:
        raise WrongUse(f"{path} is empty; expected a token")
    return found


def _hub(p: EdgeParams, ws: Workspace) -> Hub | None:
    if p.hub is None:
        return None
    if p.name is None or p.location is None or p.hub_token_file is None:
        raise WrongUse("a hub needs --name, --location and --token-file (edge.name, edge.location, edge.hub_token_file)")
    longitude, latitude = p.location
    here = Location(longitude=longitude, latitude=latitude)
    return Hub(p.hub, read_token(ws.root / p.hub_token_file), p.name, here, p.url, p.zone, ca=_below(ws)(p.hub_ca))


def _network(p: EdgeParams, ws: Workspace) -> NetworkAccess | None:
    if p.network is None:
        return None
    if p.network_token_file is None:
        raise WrongUse("a network needs --network-token-file (edge.network_token_file)")
    if not p.network_address and p.host in _EVERYWHERE:
        raise WrongUse(
            f"an edge that listens on all addresses ({p.host}) does not know which one the network sees; "
            "give it: --network-address (edge.network_address)"
        )
    token = read_token(ws.root / p.network_token_file)
    return NetworkAccess(p.network, token, p.network_address or p.host, p.port, ws.qos_journal)


def _below(ws: Workspace) -> Callable[[str | None], Path | None]:
    return lambda path: None if path is None else ws.root / path
