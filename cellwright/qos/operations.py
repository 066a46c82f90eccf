"""The operations of CAMARA Quality-on-Demand 1.1.0, each carried out exactly once whatever becomes of its answer.

The standard has no idempotency keys. So a request to create whose answer was lost is not simply repeated: the network is asked for the
device's sessions first, and the one that the request made is taken as its answer.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from cellwright.qos.forms import CreateSession, Device, ExtendSession, OfDevice, QosStatus, SessionInfo
from cellwright.qos.journal import Entry, Journal
from cellwright.qos.transport import Denied, Transport, Unreachable, understood

PATH = "/quality-on-demand/v1"
_STANDARD = "Quality-on-Demand 1.1.0"
_SESSION, _SESSIONS = TypeAdapter(SessionInfo), TypeAdapter(tuple[SessionInfo, ...])


class Operations:
    """Operations at one network. `journal`: tells whose sessions are in use, and which a crashed process left."""

    def __init__(self, transport: Transport, journal: Journal | None = None) -> None:
        self._api, self._journal = transport, journal

    @property
    def root(self) -> str:
        """The network's address."""
        return self._api.root

    def create(self, asked: CreateSession) -> SessionInfo:
        """Create a session exactly once: after a lost answer the network is asked whether it was carried out, before it is repeated.

        Raises:
            Denied: the network refused; 409 CONFLICT where another session of the device holds the flow.
            Unreachable: no answer, to the last.
        """
        return self._create(asked, frozenset())

    def get(self, session_id: UUID) -> SessionInfo:
        """A session's present state. Raises Denied (404 where it is gone), Unreachable."""
        return _info(self._api.send("GET", f"{PATH}/sessions/{session_id}"))

    def extend(self, session_id: UUID, additional_s: int) -> SessionInfo:
        """Let a session last longer; the network caps it at the profile's maximum.

        A lost answer is not repeated, as that would extend twice: the session is read instead.

        Raises:
            Denied: 409 QUALITY_ON_DEMAND.SESSION_EXTENSION_NOT_ALLOWED unless it is available; 404 where it is gone.
        """
        body = ExtendSession(requested_additional_duration=additional_s).wire()
        try:
            return _info(self._api.send("POST", f"{PATH}/sessions/{session_id}/extend", body, repeat=False))
        except Unreachable as error:
            if not error.maybe_done:
                raise
            return self.get(session_id)

    def delete(self, session_id: UUID) -> bool:
        """Delete a session; False where it was gone already. Raises Denied, Unreachable."""
        try:
            self._api.send("DELETE", f"{PATH}/sessions/{session_id}")
        except Denied as error:
            if error.status != 404:
                raise
            return False
        return True

    def retrieve(self, device: Device | None) -> tuple[SessionInfo, ...]:
        """All sessions of a device that this API consumer made. `None`: the device that the token stands for."""
        found = self._api.send("POST", f"{PATH}/retrieve-sessions", OfDevice(device=device).wire())
        return understood(_SESSIONS, found, _STANDARD)

    def _create(self, asked: CreateSession, claimed: frozenset[UUID]) -> SessionInfo:
        lost, body = False, asked.wire()
        for failures in range(self._api.retries.attempts):
            try:
                return _info(self._api.send("POST", f"{PATH}/sessions", body, repeat=False))
            except Unreachable as error:
                if not error.maybe_done:
                    raise
                lost = True
            except Denied as error:
                if error.status != 409 or failures + 1 == self._api.retries.attempts:
                    raise
                if not self._make_room(asked, claimed, lost=lost):
                    raise
            if found := self._same(asked, claimed, adopt=lost):
                return found
            self._api.retries.pause(failures)
        raise Unreachable(f"{self.root} does not answer whether it created the session", maybe_done=True)

    def _same(self, asked: CreateSession, claimed: frozenset[UUID], *, adopt: bool) -> SessionInfo | None:
        """The session that a request made whose answer was lost."""
        if not adopt:
            return None
        alike = [info for info in self._alike(asked, claimed) if info.qos_status is not QosStatus.UNAVAILABLE]
        return alike[0] if alike else None

    def _make_room(self, asked: CreateSession, claimed: frozenset[UUID], *, lost: bool) -> bool:
        """After 409: delete what is over but lingers, and what a crashed process left. Whether it pays to ask again."""
        orphans = {e.session_id for e in self._journal.entries(self.root) if e.orphaned} if self._journal else set()
        in_the_way = [info for info in self.retrieve(asked.device) if info.overlaps(asked)]
        room = [i for i in in_the_way if i.qos_status is QosStatus.UNAVAILABLE or i.session_id in orphans]
        for info in room:
            self.delete(info.session_id)
        return bool(room) or (lost and bool(self._alike(asked, claimed)))

    def _alike(self, asked: CreateSession, claimed: frozenset[UUID]) -> list[SessionInfo]:
        """Sessions that a request may have made: its sink's address names it exactly; else flow and profile, unless claimed by others."""
        try:
            found = self.retrieve(asked.device)
        except Denied as error:
            if error.status != 404:
                raise
            return []
        alike = [
            i for i in found if i.qos_profile == asked.qos_profile and _flow(i) == _flow(asked) and i.session_id not in claimed
        ]
        return [i for i in alike if i.sink == asked.sink]

    def _claimed(self, own: Entry) -> frozenset[UUID]:
        """Sessions that other entries of the journal name."""
        entries = self._journal.entries(self.root) if self._journal else ()
        return frozenset(e.session_id for e in entries if e.session_id and e.id != own.id and not e.orphaned)


def _flow(of: CreateSession | SessionInfo) -> tuple[Any, ...]:
    return of.application_server, of.application_server_ports, of.device_ports


def _info(found: Any) -> SessionInfo:
    return understood(_SESSION, found, _STANDARD)
