"""Client of CAMARA Quality-on-Demand 1.1.0.

    with QodClient("https://network.example", token, journal=Journal(path)) as client:
        with client.session(device, "198.51.100.7", "model_1g", 30) as quality:
            download()                       # runs whatever the network says; quality.state tells what it gave

The session lasts as long as the block: it is extended while the block runs and deleted when it ends, also by an exception or SIGTERM.
After a crash the journal names what is left; the next `with QodClient(…)` of the same journal deletes it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, NoReturn, Self
from uuid import UUID

from pydantic import TypeAdapter

from cellwright.errors import CellwrightError, QosError
from cellwright.qos.forms import ApplicationServer, CreateSession, Device, ExtendSession, OfDevice, Ports, QosStatus, SessionInfo
from cellwright.qos.journal import Entry, Journal
from cellwright.qos.keeper import Keeper
from cellwright.qos.session import OnChange, Session, State
from cellwright.qos.sink import Sink
from cellwright.qos.transport import Denied, Retries, Token, Transport, Unreachable, understood

log = logging.getLogger(__name__)
PATH = "/quality-on-demand/v1"
WAIT_S = 5.0
_STANDARD = "Quality-on-Demand 1.1.0"
_SESSION, _SESSIONS = TypeAdapter(SessionInfo), TypeAdapter(tuple[SessionInfo, ...])
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.5
_POLL_S, _POLL_WITH_SINK_S = 1.0, 15.0


@dataclass(frozen=True)
class Released:
    """What became of one entry of the journal. `error`: why it is still there."""

    entry: Entry
    error: str | None = None


class QodClient:
    """Sessions at one network. Safe to use from several threads."""

    def __init__(
        self,
        root: str,
        token: Token,
        *,
        journal: Journal | None = None,
        sink: Sink | None = None,
        transport: Transport | None = None,
        retries: Retries | None = None,
        timeout_s: float = 10.0,
        poll_s: float | None = None,
    ) -> None:
        """`journal`: without one, nothing is known of sessions after a crash. `sink`: where notifications arrive; else it polls."""
        self._api = transport or Transport(root, token, retries=retries, timeout_s=timeout_s)
        self._journal, self._sink = journal, sink
        self._poll_s = poll_s or (_POLL_WITH_SINK_S if sink else _POLL_S)
        self._keeper = Keeper(self)

    @property
    def root(self) -> str:
        """The network's address."""
        return self._api.root

    def __enter__(self) -> Self:
        for released in self.release():
            if released.error:
                log.warning("a QoS session of an earlier process could not be released: %s", released.error)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop extending; a last attempt to delete what could not be deleted before. What then is left stays in the journal."""
        for entry in self._keeper.stop():
            try:
                self.release_entry(entry)
            except CellwrightError as error:
                log.warning("a QoS session stays in the journal: %s", error)
        self._api.close()

    # the operations of the standard

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

    # a session that lasts as long as a transfer

    @contextmanager
    def session(
        self,
        device: Device | None,
        app_server: ApplicationServer | str,
        profile: str,
        duration_s: int,
        *,
        app_server_ports: Ports | None = None,
        device_ports: Ports | None = None,
        wait_s: float = WAIT_S,
        strict: bool = False,
        on_change: OnChange | None = None,
    ) -> Iterator[Session]:
        """Quality of service while the block runs. `duration_s`: of the first grant, and of each extension.

        Waits up to `wait_s` for the network's decision. The block runs whatever it is, unless `strict`; `on_change` is called with each
        change, from another thread. The session is deleted when the block ends, however it ends.

        Raises:
            QosError: only if `strict`, and the quality is not given before the block begins.
        """
        with _terminable():
            held = self.open(
                device,
                app_server,
                profile,
                duration_s,
                app_server_ports=app_server_ports,
                device_ports=device_ports,
                on_change=on_change,
            )
            try:
                self.settle(held, wait_s)
                if strict:
                    held.demand()
                yield held
            finally:
                self.release_session(held)

    @asynccontextmanager
    async def session_async(
        self, device: Device | None, app_server: ApplicationServer | str, profile: str, duration_s: int, **more: Any
    ) -> AsyncIterator[Session]:
        """`session` for an event loop: asking, waiting and deleting happen in threads."""
        wait_s, strict = more.pop("wait_s", WAIT_S), more.pop("strict", False)
        held = await _in_thread_to_the_end(
            lambda: self.open(device, app_server, profile, duration_s, **more), self.release_session
        )
        try:
            await asyncio.to_thread(self.settle, held, wait_s)
            if strict:
                held.demand()
            yield held
        finally:
            await asyncio.shield(asyncio.to_thread(self.release_session, held))

    def open(
        self,
        device: Device | None,
        app_server: ApplicationServer | str,
        profile: str,
        duration_s: int,
        *,
        app_server_ports: Ports | None = None,
        device_ports: Ports | None = None,
        on_change: OnChange | None = None,
    ) -> Session:
        """A session that is kept until `release_session`; returns once the network has answered. A refusal is its state, no exception."""
        asked = CreateSession(
            device=device,
            application_server=_server(app_server),
            application_server_ports=app_server_ports,
            device_ports=device_ports,
            qos_profile=profile,
            duration=duration_s,
        )
        held = Session(profile, duration_s, on_change)
        if self._sink:
            address = self._sink.open(held.hear)
            held.ref = address.ref
            asked = asked.model_copy(update={"sink": address.url, "sink_credential": address.credential})
        held.entry = self._note(Entry(self.root, asked))
        try:
            self._ask(held)
        except BaseException:  # interrupted between asking and knowing: what the network may hold is deleted
            self.release_session(held)
            raise
        if not held.over:
            self._keeper.keep(held, self._poll_s)
        return held

    def settle(self, held: Session, timeout_s: float) -> State:
        """Wait for the network's decision: by notification, and by asking, as notifications can get lost."""
        pause_s, left_s = _FIRST_LOOK_S, timeout_s
        while left_s > 0 and held.wait(min(pause_s, left_s)) is State.REQUESTED:
            left_s -= pause_s
            pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
            try:
                self.refresh(held)
            except QosError as error:
                log.warning("QoS session %s: %s", held.id, error)
        return held.state

    def release_session(self, held: Session) -> None:
        """Give a session back. Where the network cannot be reached, the keeper goes on trying, and after a crash the journal knows."""
        self._keeper.drop(held)
        if held.ref and self._sink:
            self._sink.close(held.ref)
        entry = held.entry
        if entry is None:
            return
        held.entry = None
        try:
            self.release_entry(entry)
        except CellwrightError as error:
            log.warning("a QoS session could not be released yet: %s", error)
            self._keeper.owe(entry)
        held.turn(State.RELEASED, "the transfer ended")

    def release(self, *, everything: bool = False) -> tuple[Released, ...]:
        """Delete the sessions in the journal whose process is gone; with `everything`, also those that are in use."""
        if self._journal is None:
            return ()
        entries = [entry for entry in self._journal.entries(self.root) if everything or entry.orphaned]
        return tuple(self._released(entry) for entry in entries)

    # for the keeper

    def refresh(self, session: Session) -> None:
        """Ask for a session's state and let it know."""
        if session.id is None:
            return
        try:
            session.learn(self.get(session.id))
        except Denied as error:
            if error.status != 404:
                raise
            session.turn(State.LOST, "the network knows it no more")

    def prolong(self, session: Session) -> None:
        """Extend a session by as much as it was first asked for; notes where the network caps it."""
        if session.id is None or session.info is None:
            return
        before_s = session.info.duration
        try:
            info = self.extend(session.id, session.asked_s)
        except Denied as error:
            if error.status not in (404, 409):
                raise
            self.refresh(session)
            session.capped = True
            return
        session.capped = info.duration < before_s + session.asked_s
        session.learn(info)

    def release_entry(self, entry: Entry) -> None:
        """Delete what an entry stands for, and then the entry. Raises QosError."""
        for session_id in [entry.session_id] if entry.session_id else self._unnamed(entry):
            self.delete(session_id)
        if self._journal:
            self._journal.remove(entry)

    def _released(self, entry: Entry) -> Released:
        try:
            self.release_entry(entry)
        except QosError as error:
            return Released(entry, str(error))
        return Released(entry)

    def _note(self, entry: Entry) -> Entry:
        return self._journal.write(entry) if self._journal else entry

    def _ask(self, held: Session) -> None:
        """Create it. A refusal becomes its state; then there is nothing to release, unless the answer was lost."""
        entry = held.entry
        assert entry is not None
        try:
            info = self._create(entry.asked, self._claimed(entry))
        except Denied as error:
            held.turn(State.DENIED, str(error))
            held.entry = None
            if self._journal:
                self._journal.remove(entry)
        except QosError as error:
            held.turn(State.DENIED, str(error))
        else:
            held.entry = self._note(replace(entry, session_id=info.session_id))
            held.learn(info)

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

    def _unnamed(self, entry: Entry) -> list[UUID]:
        """Sessions that an entry without a session's id may stand for."""
        return [info.session_id for info in self._alike(entry.asked, self._claimed(entry))]

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


def _server(given: ApplicationServer | str) -> ApplicationServer:
    if isinstance(given, ApplicationServer):
        return given
    return ApplicationServer(ipv6_address=given) if ":" in given else ApplicationServer(ipv4_address=given)


def _info(found: Any) -> SessionInfo:
    return understood(_SESSION, found, _STANDARD)


async def _in_thread_to_the_end(work: Any, undo: Any) -> Session:
    """Run `work` in a thread; if the task is cancelled meanwhile, what it made is undone."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.to_thread(undo, await running)
        raise


@contextmanager
def _terminable() -> Iterator[None]:
    """While the block runs, SIGTERM ends the process by SystemExit, so that `finally` happens; only where nobody handles it yet."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
