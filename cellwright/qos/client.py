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

from cellwright.errors import CellwrightError, QosError
from cellwright.qos.forms import ApplicationServer, CreateSession, Device, Ports
from cellwright.qos.journal import Entry, Journal
from cellwright.qos.keeper import Keeper
from cellwright.qos.operations import Operations
from cellwright.qos.session import OnChange, Session, State
from cellwright.qos.sink import Sink
from cellwright.qos.transport import Denied, Retries, Token, Transport

log = logging.getLogger(__name__)
WAIT_S = 5.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.5
_POLL_S, _POLL_WITH_SINK_S = 1.0, 15.0


@dataclass(frozen=True)
class Released:
    """What became of one entry of the journal. `error`: why it is still there."""

    entry: Entry
    error: str | None = None


class QodClient(Operations):
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
        super().__init__(transport or Transport(root, token, retries=retries, timeout_s=timeout_s), journal)
        self._sink = sink
        self._poll_s = poll_s or (_POLL_WITH_SINK_S if sink else _POLL_S)
        self._keeper = Keeper(self)

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
        with terminable():
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

    def _claimed(self, own: Entry) -> frozenset[UUID]:
        """Those of this client too, which may have no journal."""
        return super()._claimed(own) | self._keeper.ids()

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

    def _unnamed(self, entry: Entry) -> list[UUID]:
        """Sessions that an entry without a session's id may stand for."""
        return [info.session_id for info in self._alike(entry.asked, self._claimed(entry))]


def _server(given: ApplicationServer | str) -> ApplicationServer:
    if isinstance(given, ApplicationServer):
        return given
    return ApplicationServer(ipv6_address=given) if ":" in given else ApplicationServer(ipv4_address=given)


async def _in_thread_to_the_end(work: Any, undo: Any) -> Session:
    """Run `work` in a thread; if the task is cancelled meanwhile, what it made is undone."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.to_thread(undo, await running)
        raise


@contextmanager
def terminable() -> Iterator[None]:
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
