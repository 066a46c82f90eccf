"""The state of every QoS session of the network. Pure: told the time, it says what became of whom; no sockets, no sleeping.

REQUESTED --decision--> AVAILABLE --duration--> UNAVAILABLE (DURATION_EXPIRED)   --linger--> gone
          --no room---> UNAVAILABLE (NETWORK_TERMINATED) <--revoked, no room after a handover--
any --delete--> gone
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from cellwright.qos.forms import CreateSession, Device, QosStatus, SessionInfo, StatusChanged, StatusInfo
from cellwright.qos.profile import ProfileStatus, QosProfile
from cellwright.qos.simulator.clock import moment
from cellwright.qos.simulator.options import Behaviour, Cell, Terminal
from cellwright.qos.simulator.refusal import Refusal, invalid, not_found
from cellwright.qos.simulator.terrain import Terrain

_NO_EXTENSION = "QUALITY_ON_DEMAND.SESSION_EXTENSION_NOT_ALLOWED"


@dataclass(frozen=True)
class Subject:
    """Who asks, and for which device. `shown`: the one identifier that answers repeat; None where the token names the device."""

    client: str
    device: Terminal
    shown: Device | None


@dataclass(frozen=True)
class Held:
    """A session as the network keeps it; times in seconds of its clock."""

    id: UUID
    subject: Subject
    asked: CreateSession
    profile: QosProfile
    duration_s: int
    decide_at_s: float
    status: QosStatus = QosStatus.REQUESTED
    reason: StatusInfo | None = None
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def ends_at_s(self) -> float:
        """When its duration is over."""
        return (self.started_s if self.started_s is not None else self.decide_at_s) + self.duration_s

    @property
    def holds_flow(self) -> bool:
        """Whether another session for the flow would be in conflict: also while it lingers after the network ended it."""
        return self.reason is not StatusInfo.DURATION_EXPIRED

    def info(self) -> SessionInfo:
        """As the standard tells of it; the sink's credential is not repeated."""
        end_s = self.ended_s if self.ended_s is not None else self.ends_at_s
        lasted_s = max(1, round(end_s - self.started_s)) if self.ended_s is not None and self.started_s is not None else None
        return SessionInfo(
            **{
                name: getattr(self.asked, name)
                for name in ("application_server", "device_ports", "application_server_ports", "qos_profile", "sink")
            },
            session_id=self.id,
            device=self.subject.shown,
            duration=lasted_s or self.duration_s,
            started_at=None if self.started_s is None else moment(self.started_s),
            expires_at=None if self.status is QosStatus.REQUESTED else moment(end_s),
            qos_status=self.status,
            status_info=self.reason,
        )


@dataclass(frozen=True)
class Notice:
    """An event for a session's sink."""

    held: Held
    at_s: float
    data: StatusChanged


@dataclass
class Sessions:
    """All of them. Every call is given the present time and first catches up with it."""

    terrain: Terrain
    profiles: dict[str, QosProfile]
    behaviour: Behaviour
    held: dict[UUID, Held] = field(default_factory=dict)
    outbox: list[Notice] = field(default_factory=list)
    version: int = 0  # grows with every change of what flows are given
    _of_device: dict[str, dict[UUID, None]] = field(default_factory=dict)  # in the order in which they were made
    _queue: list[tuple[float, UUID]] = field(default_factory=list)  # heap of moments at which something happens

    # operations

    def create(self, subject: Subject, asked: CreateSession, now_s: float) -> Held:
        """A new session. Raises Refusal."""
        self.tick(now_s)
        profile = self._applicable(asked.qos_profile)
        longest_s = profile.longest_s
        if asked.duration < profile.shortest_s or (longest_s is not None and asked.duration > longest_s):
            allowed = f"{profile.shortest_s:g} to {longest_s:g}" if longest_s is not None else f"at least {profile.shortest_s:g}"
            code = "QUALITY_ON_DEMAND.DURATION_OUT_OF_RANGE"
            raise Refusal(400, code, f"{profile.name} lasts {allowed} seconds, asked for {asked.duration}.")
        for other in self.at(subject.device.name):
            if other.holds_flow and other.asked.overlaps(asked):
                raise Refusal(409, "CONFLICT", "Conflict with an existing session for the same device.")
        decide_at_s = now_s + self.behaviour.decision_s
        made = Held(uuid4(), subject, asked, profile, asked.duration, decide_at_s)
        self._put(made)
        if self.behaviour.decision_s == 0 and self._room(made):
            self._decide(made, now_s)
        return self.held[made.id]

    def get(self, client: str, device: Terminal | None, session_id: UUID, now_s: float) -> Held:
        """One session of a client. `device`: the one that the token stands for. Raises Refusal."""
        self.tick(now_s)
        found = self.held.get(session_id)
        if found is None or found.subject.client != client:
            raise not_found()
        if device is not None and device.name != found.subject.device.name:
            raise Refusal(403, "PERMISSION_DENIED", "The session is of another device than the access token.")
        return found

    def extend(self, found: Held, additional_s: int) -> Held:
        """Let it last longer, up to the profile's maximum. Raises Refusal."""
        if found.status is not QosStatus.AVAILABLE:
            said = f"Extending the session duration is not allowed in the current state ({found.status}); it must be AVAILABLE."
            raise Refusal(409, _NO_EXTENSION, said)
        most_s = int(found.profile.longest_s) if found.profile.longest_s is not None else 2**31 - 1
        return self._put(replace(found, duration_s=max(found.duration_s, min(found.duration_s + additional_s, most_s))))

    def delete(self, found: Held, now_s: float) -> None:
        """Release it at once. Only a session that was available tells its sink."""
        self._drop(found.id)
        if found.status is QosStatus.AVAILABLE:
            self._notify(found, now_s, QosStatus.UNAVAILABLE, StatusInfo.DELETE_REQUESTED)

    def of_device(self, client: str, device: Terminal, now_s: float) -> list[Held]:
        """All sessions of a device that a client made."""
        self.tick(now_s)
        return [held for held in self.at(device.name) if held.subject.client == client]

    def at(self, device: str) -> list[Held]:
        """All sessions of a device, whoever made them."""
        return [self.held[id_] for id_ in self._of_device.get(device, ())]

    def revoke(self, session_id: UUID, now_s: float) -> Held:
        """The network ends a session. Raises Refusal."""
        self.tick(now_s)
        found = self.held.get(session_id)
        if found is None:
            raise not_found()
        if found.status is not QosStatus.UNAVAILABLE:
            self._end(found, now_s, StatusInfo.NETWORK_TERMINATED)
        return self.held[session_id]

    def moved(self, device: Terminal, now_s: float) -> None:
        """A device is somewhere else: the new cell must have room for what it was given."""
        self.tick(now_s)
        for held in self.at(device.name):
            after = self._put(replace(held, subject=replace(held.subject, device=device)))
            if after.status is QosStatus.AVAILABLE and not self._room(after):
                self._end(after, now_s, StatusInfo.NETWORK_TERMINATED)

    def forget(self, device: str, now_s: float) -> None:
        """A device is gone from the network: what it was given ends."""
        for held in self.at(device):
            if held.status is not QosStatus.UNAVAILABLE:
                self.revoke(held.id, now_s)

    def behave(self, behaviour: Behaviour) -> None:
        """Decide and linger differently from now on."""
        self.behaviour = behaviour
        self._queue = [(self._moment_of(held), id_) for id_, held in self.held.items()]
        heapq.heapify(self._queue)

    # time

    def tick(self, now_s: float) -> None:
        """Catch up: every transition happens at its own moment, in order."""
        while (due := self._due()) and due[0] <= now_s:
            at_s, session_id = due
            held = self.held[session_id]
            if held.status is QosStatus.REQUESTED:
                self._decide(held, at_s)
            elif held.status is QosStatus.AVAILABLE:
                self._end(held, at_s, StatusInfo.DURATION_EXPIRED)
            else:
                self._drop(session_id)

    def next_due_s(self) -> float | None:
        """When something happens by itself."""
        due = self._due()
        return due[0] if due else None

    def _due(self) -> tuple[float, UUID] | None:
        """The next moment; those that were overtaken by a change are dropped from the queue."""
        while self._queue:
            at_s, id_ = self._queue[0]
            if id_ in self.held and self._moment_of(self.held[id_]) == at_s:
                return at_s, id_
            heapq.heappop(self._queue)
        return None

    def _moment_of(self, held: Held) -> float:
        if held.status is QosStatus.REQUESTED:
            return held.decide_at_s
        return held.ends_at_s if held.status is QosStatus.AVAILABLE else (held.ended_s or 0.0) + self.behaviour.linger_s

    def _decide(self, held: Held, now_s: float) -> None:
        if not self._room(held):
            self._end(held, now_s, StatusInfo.NETWORK_TERMINATED)
            return
        self._put(replace(held, status=QosStatus.AVAILABLE, started_s=now_s))
        self._notify(held, now_s, QosStatus.AVAILABLE, None)

    def _end(self, held: Held, now_s: float, reason: StatusInfo) -> None:
        self._put(replace(held, status=QosStatus.UNAVAILABLE, reason=reason, ended_s=now_s))
        self._notify(held, now_s, QosStatus.UNAVAILABLE, reason)

    def _put(self, held: Held) -> Held:
        self.held[held.id] = held
        self._of_device.setdefault(held.subject.device.name, {})[held.id] = None
        heapq.heappush(self._queue, (self._moment_of(held), held.id))
        self.version += 1
        return held

    def _drop(self, session_id: UUID) -> None:
        held = self.held.pop(session_id)
        ids = self._of_device[held.subject.device.name]
        del ids[session_id]
        if not ids:
            del self._of_device[held.subject.device.name]
        self.version += 1

    def _notify(self, held: Held, now_s: float, status: QosStatus, reason: StatusInfo | None) -> None:
        if held.asked.sink:
            data = StatusChanged.model_validate(
                {"sessionId": held.id, "qosStatus": status} | ({"statusInfo": reason} if reason else {})
            )
            self.outbox.append(Notice(held, now_s, data))

    # admission

    def given_in(self, cell: Cell, *, but: UUID | None = None) -> list[Held]:
        """The sessions that a cell serves."""
        return [
            held
            for held in self.held.values()
            if held.status is QosStatus.AVAILABLE
            and held.id != but
            and self.terrain.cell_of(held.subject.device).name == cell.name
        ]

    def _room(self, held: Held) -> bool:
        if self.behaviour.deny:
            return False
        cell = self.terrain.cell_of(held.subject.device)
        taken = sum(other.profile.guaranteed_bit_s() or 0.0 for other in self.given_in(cell, but=held.id))
        return taken + (held.profile.guaranteed_bit_s() or 0.0) <= cell.capacity_bit_s

    def _applicable(self, name: str) -> QosProfile:
        profile = self.profiles.get(name)
        if profile is None:
            raise invalid(f"There is no QoS profile {name}.")
        if profile.status is not ProfileStatus.ACTIVE:
            code = "QUALITY_ON_DEMAND.QOS_PROFILE_NOT_APPLICABLE"
            raise Refusal(422, code, "The requested QoS Profile is currently not available for session creation.")
        return profile
