"""One thread that keeps all sessions of a client: extends them, asks how they are, and releases what could not be released at once."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from cellwright.errors import CellwrightError
from cellwright.qos.journal import Entry
from cellwright.qos.session import Session, State

log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class Network(Protocol):
    """What the keeper needs of a client."""

    def refresh(self, session: Session) -> None:
        """Ask the network for the session's state."""

    def prolong(self, session: Session) -> None:
        """Extend the session."""

    def release_entry(self, entry: Entry) -> None:
        """Delete what an entry stands for; raises QosError where that fails."""


@dataclass
class _Kept:
    session: Session
    poll_s: float
    polled_at: float = field(default_factory=time.monotonic)

    def due_s(self) -> float:
        poll_s = self.polled_at + self.poll_s - time.monotonic()
        extension_s = self.session.extension_due_s()
        return max(0.0, poll_s if extension_s is None else min(poll_s, extension_s))


@dataclass
class _Owed:
    entry: Entry
    due_at: float
    pause_s: float = _FIRST_PAUSE_S


class Keeper:
    """Starts with the first session; `stop` ends it."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._wake = threading.Condition()
        self._kept: list[_Kept] = []
        self._owed: list[_Owed] = []
        self._thread: threading.Thread | None = None
        self._stopped = False

    def keep(self, session: Session, poll_s: float) -> None:
        """Extend the session while it lives, and ask for its state every `poll_s`."""
        with self._wake:
            self._kept.append(_Kept(session, poll_s))
            self._begin()

    def drop(self, session: Session) -> None:
        """Leave a session alone."""
        with self._wake:
            self._kept = [kept for kept in self._kept if kept.session is not session]

    def ids(self) -> frozenset[UUID]:
        """The sessions that are kept."""
        with self._wake:
            return frozenset(kept.session.id for kept in self._kept if kept.session.id)

    def owe(self, entry: Entry) -> None:
        """Go on trying to delete what an entry stands for."""
        with self._wake:
            self._owed.append(_Owed(entry, time.monotonic() + _FIRST_PAUSE_S))
            self._begin()

    def stop(self) -> tuple[Entry, ...]:
        """End the thread; what is still to be deleted."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        if self._thread:
            self._thread.join()
        return tuple(owed.entry for owed in self._owed)

    def _begin(self) -> None:
        if self._thread is None and not self._stopped:
            self._thread = threading.Thread(target=self._run, name="qos-keeper", daemon=True)
            self._thread.start()
        self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopped:
                    return
                due_s = self._next_s()
                if due_s > 0:
                    self._wake.wait(due_s if due_s < threading.TIMEOUT_MAX else None)
                    continue
                kept = [one for one in self._kept if one.due_s() <= 0]
                owed = [one for one in self._owed if one.due_at <= time.monotonic()]
            for one in kept:
                self._look(one)
            for late in owed:
                self._repay(late)

    def _next_s(self) -> float:
        now = time.monotonic()
        self._kept = [kept for kept in self._kept if not kept.session.over]
        return min([k.due_s() for k in self._kept] + [o.due_at - now for o in self._owed], default=threading.TIMEOUT_MAX)

    def _look(self, kept: _Kept) -> None:
        """Extend it if that is due, else ask how it is. A network that cannot be asked for once is no reason to give up."""
        extend = kept.session.extension_due_s()
        kept.polled_at = time.monotonic()
        try:
            if extend is not None and extend <= 0:
                self._network.prolong(kept.session)
            else:
                self._network.refresh(kept.session)
        except CellwrightError as error:
            log.warning("QoS session %s: %s", kept.session.id, error)
            if kept.session.active and kept.session.remaining_s() <= 0:
                kept.session.turn(State.LOST, "its duration is over and the network cannot be asked")

    def _repay(self, owed: _Owed) -> None:
        try:
            self._network.release_entry(owed.entry)
        except CellwrightError as error:
            owed.pause_s = min(2 * owed.pause_s, _LONGEST_PAUSE_S)
            owed.due_at = time.monotonic() + owed.pause_s
            log.warning("a QoS session is still to be released: %s", error)
            return
        with self._wake:
            self._owed.remove(owed)
