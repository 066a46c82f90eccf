"""Quality of service that a device asks the network for itself, and that goes with it from edge to edge.

A session is for one flow, device ↔ application server. So a device that goes on at another edge gives the old session back, and asks for
one with the new edge. One thread does all the asking; the transfer waits for it at its beginning only, and not for long.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from cellwright.edge.contract import Quality
from cellwright.errors import CellwrightError, QosError

if TYPE_CHECKING:
    from cellwright.edge.quality import Network
    from cellwright.qos.choice import Chosen
    from cellwright.qos.client import QodClient
    from cellwright.qos.session import Session

_OVERHEAD = 0.05  # headers, as a share of the bytes
_SETTLE_S = 1.0  # after this, a decision is learnt from the once-a-second look at the session
_PATIENCE_S = 5.0  # for one answer of the network
_ATTEMPTS = 2
_TELL_S, _END_S = 1.0, 2.0  # the transfer's end waits for so long: to hear how the session stands, and that it was given back


@dataclass(frozen=True)
class Demand:
    """What is still to come, and in what time."""

    bytes: int
    deadline_s: float


class OwnQuality:
    """Sessions of one fetch, one after the other; inside a `with` block, which gives back whatever is left."""

    def __init__(self, network: Network, demand: Callable[[], Demand]) -> None:
        """`demand`: called, in another thread, whenever the network is to be asked."""
        self.notes: list[str] = []
        self._network, self._demand = network, demand
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="own-quality")
        self._stack, self._leaving = ExitStack(), ExitStack()
        self._client: QodClient | None = None
        self._wanted: str | None = None  # the edge that the session should be with
        self._with: str | None = None  # the edge that it is with, or was asked for
        self._sessions: list[Session] = []
        self._session: Session | None = None
        self._refused: str | None = None

    def __enter__(self) -> Self:
        from cellwright.qos.client import terminable

        self._leaving.enter_context(terminable())
        return self

    def __exit__(self, *_: object) -> None:
        self._wanted = None
        ended = self._pool.submit(self._end)
        self._pool.shutdown(wait=False)
        try:
            ended.result(_END_S)
        except TimeoutError:
            self.notes.append("the network is slow to take the session of quality back; that goes on in the background")
        finally:
            self._leaving.close()

    def begin(self, url: str) -> None:
        """Ask for a session with an edge; the network's decision is waited for as long as the set-up may take."""
        from cellwright.qos.choice import SETUP_SHARE

        asked = self.at(url)
        with suppress(TimeoutError):
            asked.result(min(_SETTLE_S, SETUP_SHARE * self._demand().deadline_s))

    def at(self, url: str) -> Future[None]:
        """From now on the transfer is with this edge. Nothing is waited for."""
        self._wanted = url
        return self._pool.submit(self._go, url)

    def told(self) -> Quality:
        """How the session stands by the network's own word of now; by the last one where it does not answer at once."""
        try:
            return self._pool.submit(self._asked).result(_TELL_S)
        except TimeoutError:
            return self._known()

    @property
    def held_s(self) -> float:
        """Seconds for which a session gave quality, all of them together."""
        return sum(session.held_s for session in tuple(self._sessions))

    # in the thread

    def _go(self, url: str) -> None:
        if url != self._wanted or url == self._with:
            return  # it went on again meanwhile, or came back
        self._give_back()
        self._with, self._refused = url, None
        try:
            self._ask(url)
        except (CellwrightError, ValueError) as error:  # a name that cannot be one, too: the fetch goes on without
            self._refused = str(error)

    def _ask(self, url: str) -> None:
        begun = time.monotonic()
        address, client = _address(url), self._opened()
        chosen = self._chosen(begun)
        session = self._session = client.open(
            self._network.device, address, chosen.name, chosen.duration_s, app_server_ports=_port(url)
        )
        session.remark = chosen.why if chosen.tight else ""
        self._sessions.append(session)
        client.settle(session, _SETTLE_S)

    def _chosen(self, begun: float) -> Chosen:
        from cellwright.qos.choice import SETUP_SHARE, choose
        from cellwright.qos.profiles import ProfilesClient
        from cellwright.qos.transport import Retries, Transport

        demand = self._demand()
        transport = Transport(self._network.url, self._network.token, timeout_s=_PATIENCE_S, retries=Retries(_ATTEMPTS))
        profiles = ProfilesClient(self._network.url, self._network.token, transport=transport)
        try:
            offered = profiles.retrieve(self._network.device)
        finally:
            profiles.close()
        setup_s = time.monotonic() - begun + SETUP_SHARE * demand.deadline_s
        return choose(offered, demand.bytes, demand.deadline_s, overhead=_OVERHEAD, setup_s=setup_s)

    def _opened(self) -> QodClient:
        from cellwright.qos.client import QodClient
        from cellwright.qos.journal import Journal
        from cellwright.qos.transport import Retries

        if self._client is None:
            journal = Journal(self._network.journal) if self._network.journal else None
            client = QodClient(
                self._network.url, self._network.token, journal=journal, timeout_s=_PATIENCE_S, retries=Retries(_ATTEMPTS)
            )
            self._client = self._stack.enter_context(client)
        return self._client

    def _asked(self) -> Quality:
        if self._session is not None and self._client is not None:
            with suppress(QosError):
                self._client.refresh(self._session)
        return self._known()

    def _known(self) -> Quality:
        session, refused = self._session, self._refused
        if session is None:
            state, why = ("denied", refused) if refused is not None else ("requested", "the network has not answered yet")
            return Quality(state=state, why=why[:500])
        why = "; ".join(filter(None, (session.why, session.remark)))
        name = str(session.id) if session.id else None
        return Quality(state=str(session.state), why=why[:500], profile=session.profile, session=name)

    def _give_back(self) -> None:
        session, self._session = self._session, None
        if session is not None and self._client is not None:
            self._client.release_session(session)

    def _end(self) -> None:
        self._give_back()
        self._stack.close()


def _address(url: str) -> str:
    """The edge's address as the network sees it. Raises QosError."""
    host = urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise QosError(f"the edge's name {host} has no address ({error}); no quality can be asked for") from error
    return str(found[0][4][0])


def _port(url: str) -> Any:
    from cellwright.qos.forms import Ports

    parts = urlsplit(url)
    return Ports(ports=(parts.port or (443 if parts.scheme == "https" else 80),))
