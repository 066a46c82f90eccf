"""Quality of service that edges ask for while a device fetches: each is told that the device is there, and in the end how it went.

The transfer goes on whatever the network says; what it said, and how it ended, is part of the report. What the device asks for itself
is in own_quality.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import ValidationError

from cellwright.edge.contract import ARRIVALS, FETCHES, Arrival, Arrived, Quality
from cellwright.edge.route import Route, Stop
from cellwright.hub.contract import FetchReport, FetchReports, told

if TYPE_CHECKING:
    import ssl

    from cellwright.qos.forms import Device

_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_CLOSEST_S = 1.0  # for one answer to which edge is closest; without one, the hub's order by distance does
_GONE = frozenset({404, 405})
_LEAVE_S = 2.0  # an edge that was left is waited for so long, once the transfer is over; it forgets the device by itself too


@dataclass(frozen=True)
class Network:
    """Where a device asks for quality, and as whom. `device` None: the one that the token stands for."""

    url: str
    token: str
    journal: Path | None = None
    device: Device | None = None

    def closest_zone(self) -> str:
        """Id of the closest edge cloud zone (CAMARA Simple Edge Discovery). Raises QosError."""
        from cellwright.qos.discovery import EdgeDiscovery
        from cellwright.qos.transport import Retries, Transport

        transport = Transport(self.url, self.token, timeout_s=_CLOSEST_S, retries=Retries(attempts=2))
        discovery = EdgeDiscovery(self.url, self.token, transport=transport)
        try:
            return str(discovery.closest(self.device).id)
        finally:
            discovery.close()


class Presence:
    """Tells each edge of a route that the device is there, and in the end how it went."""

    def __init__(self, arrival: Callable[[], Arrival], tls: ssl.SSLContext | bool = True) -> None:
        """`arrival`: what an edge is told, as it is at the moment."""
        self.notes: list[str] = []
        self._arrival, self._tls = arrival, tls
        self._at: tuple[Stop, Arrived] | None = None
        self._leaving: list[threading.Thread] = []
        self.route: Route | None = None

    def announce(self, stop: Stop) -> None:
        """The device is at `stop` from now on; the edge before need not keep a session for it any longer."""
        self.leave()
        answer = self._send(stop, "POST", ARRIVALS, self._arrival().model_dump(mode="json"))
        self._at = (stop, answer) if answer is not None else None

    def leave(self) -> None:
        """The device is nowhere. The edge may be out of reach already: nobody waits for it here."""
        if self._at is not None:
            leaving = threading.Thread(target=self._leave, args=self._at, name="leave", daemon=True)
            leaving.start()
            self._leaving.append(leaving)
            self._at = None

    def quality(self) -> Quality | None:
        """How the session of the edge of the moment stands; None: it asked no network, or does not say."""
        if self._at is None:
            return None
        stop, before = self._at
        if before.qos is None:
            return None
        now = self._send(stop, "GET", f"{ARRIVALS}/{before.id}", None)
        return (now or before).qos

    def report(self, stop: Stop, report: FetchReport) -> bool:
        """Hand a report to an edge, which passes it on; whether it took it."""
        for leaving in self._leaving:
            leaving.join(_LEAVE_S)
        body = FetchReports(reports=(report,)).model_dump(mode="json")
        return self._exchange(stop, "POST", FETCHES, body) is not None

    def _leave(self, stop: Stop, arrived: Arrived) -> None:
        self._exchange(stop, "DELETE", f"{ARRIVALS}/{arrived.id}", None)

    def _send(self, stop: Stop, method: str, path: str, body: dict[str, Any] | None) -> Arrived | None:
        content = self._exchange(stop, method, path, body)
        if content is None:
            return None
        try:
            return told(Arrived, content)
        except ValidationError as error:
            self.notes.append(f"{stop.url}{path} answered something else ({error.errors()[0]['msg']})"[:500])
            return None

    def _exchange(self, stop: Stop, method: str, path: str, body: dict[str, Any] | None) -> bytes | None:
        """The answer of an edge; None, with a note, where it did not take it. An older edge (404) is no news."""
        headers = self.route.headers if self.route else {}
        tls = self._tls if stop.url.startswith("https:") else False  # reading the public authorities takes tens of milliseconds
        try:
            with httpx.Client(timeout=_TIMEOUT, verify=tls, trust_env=False) as client:
                answer = client.request(method, f"{stop.url.rstrip('/')}{path}", json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.notes.append(f"{stop.url}{path}: {error or type(error).__name__}"[:500])
            return None
        if answer.is_success:
            return answer.content[:65_536]
        if answer.status_code not in _GONE:
            said = answer.text[:200]
            with suppress(ValueError, AttributeError):
                said = str(answer.json().get("detail", said))
            self.notes.append(f"{stop.url}{path}: {answer.status_code}, {said}"[:500])
        return None
