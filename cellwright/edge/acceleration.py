"""The edge asks the network for quality of service when a device arrives: the profile that carries the bytes by the deadline."""

from __future__ import annotations

import ipaddress
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.edge.contract import Quality
from cellwright.errors import CellwrightError

if TYPE_CHECKING:
    from cellwright.qos.client import QodClient
    from cellwright.qos.forms import Device
    from cellwright.qos.session import Session

_OVERHEAD = 0.05  # headers, as a share of the bytes
_DECISION_S = 1.0  # the network's decision is waited for so long; the transfer need not wait for more


@dataclass(frozen=True)
class NetworkAccess:
    """Where to ask, and as whom. `address`: of this edge, as the network sees the flow's far end."""

    url: str
    token: str
    address: str
    port: int | None = None  # of the flow; None: any
    journal: Path | None = None  # what is known of sessions after a crash


class Acceleration:
    """Sessions at one network. Everything waits for the network: call it in threads."""

    def __init__(self, access: NetworkAccess) -> None:
        import cellwright.qos.client  # now, so that the first device does not wait for it
        import cellwright.qos.profiles  # noqa: F401

        self._access = access
        self._lock = threading.Lock()
        self._client: QodClient | None = None

    def open(self, address: str, needed_bytes: int, deadline_s: float) -> tuple[Session | None, Quality]:
        """Ask for a session for a device at `address`; no refusal is an error, it is how the quality stands."""
        from cellwright.qos.choice import SETUP_SHARE, choose
        from cellwright.qos.forms import Ports
        from cellwright.qos.profiles import ProfilesClient

        begun = time.monotonic()
        try:
            device = _device(address)
            profiles = ProfilesClient(self._access.url, self._access.token)
            try:
                offered = profiles.retrieve(device)
            finally:
                profiles.close()
            setup_s = time.monotonic() - begun + SETUP_SHARE * deadline_s
            chosen = choose(offered, max(1, needed_bytes), deadline_s, overhead=_OVERHEAD, setup_s=setup_s)
            ports = Ports(ports=(self._access.port,)) if self._access.port else None
            client = self._opened()
            session = client.open(device, self._access.address, chosen.name, chosen.duration_s, app_server_ports=ports)
            session.remark = chosen.why if chosen.tight else ""
            client.settle(session, _DECISION_S)
        except (CellwrightError, ValueError) as error:
            return None, Quality(state="denied", why=str(error)[:500])
        return session, told(session)

    def release(self, session: Session) -> None:
        """Give a session back; where the network cannot be reached, the journal remembers."""
        self._opened().release_session(session)

    def close(self) -> None:
        """Stop; sessions that were not released stay in the journal, and are released at the next start."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _opened(self) -> QodClient:
        from cellwright.qos.client import QodClient
        from cellwright.qos.journal import Journal

        with self._lock:
            if self._client is None:
                journal = Journal(self._access.journal) if self._access.journal else None
                self._client = QodClient(self._access.url, self._access.token, journal=journal).__enter__()
            return self._client


def told(session: Session) -> Quality:
    """How a session stands, for whoever asked."""
    name = str(session.id) if session.id else None
    why = "; ".join(filter(None, (session.why, session.remark)))
    return Quality(state=str(session.state), why=why[:500], profile=session.profile, session=name)


def _device(address: str) -> Device:
    """A device by its address; where no translation is in between, the public one is also its own."""
    from cellwright.qos.forms import Device, Ipv4Address

    if ipaddress.ip_address(address).version == 6:
        return Device(ipv6_address=address)
    return Device(ipv4_address=Ipv4Address(public_address=address, private_address=address))
