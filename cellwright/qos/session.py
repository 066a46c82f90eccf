"""One QoS session as its user sees it: a state that says plainly what the network gives, and never an error in the transfer itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from cellwright.errors import QosError
from cellwright.qos.forms import CloudEvent, QosStatus, SessionInfo, StatusInfo

if TYPE_CHECKING:
    from cellwright.qos.journal import Entry

log = logging.getLogger(__name__)
_LEAD = 0.25  # a session is extended when this part of its last grant is left, …
_MOST_LEAD_S = 30.0  # … or so much


class State(StrEnum):
    """What the network gives at the moment."""

    REQUESTED = "requested"  # asked for, not decided yet
    AVAILABLE = "available"  # the profile's quality is given
    DENIED = "denied"  # refused, or found impossible before it began
    EXPIRED = "expired"  # its duration is over and could not be extended
    REVOKED = "revoked"  # the network took it back
    LOST = "lost"  # the network knows it no more, or cannot be asked
    RELEASED = "released"  # given back


_OVER = frozenset({State.DENIED, State.EXPIRED, State.REVOKED, State.LOST, State.RELEASED})


@dataclass(frozen=True)
class Change:
    """One entry of a session's history."""

    state: State
    why: str
    at_s: float  # Unix time


OnChange = Callable[["Session", Change], None]


class Session:
    """Made by `QodClient.open` or `QodClient.session`. All of it may be read from any thread while a transfer runs."""

    def __init__(self, profile: str, asked_s: int, on_change: OnChange | None = None) -> None:
        self.profile, self.asked_s = profile, asked_s
        self.info: SessionInfo | None = None
        self.capped = False  # the network extends it no further
        self.entry: Entry | None = None
        self.ref: str | None = None  # its address in the sink
        self.remark = ""  # of whoever asked for it, on how well it fits
        self._on_change, self._asked_at = on_change, time.monotonic()
        self._changed = threading.Condition()
        self._history = [Change(State.REQUESTED, "asked for", time.time())]

    @property
    def id(self) -> UUID | None:
        """The network's name of it; None while, or if, it got none."""
        return self.info.session_id if self.info else None

    @property
    def state(self) -> State:
        """The newest state."""
        return self._history[-1].state

    @property
    def why(self) -> str:
        """What the network gave as a reason for the state."""
        return self._history[-1].why

    @property
    def history(self) -> tuple[Change, ...]:
        """All states it went through, oldest first."""
        return tuple(self._history)

    @property
    def active(self) -> bool:
        """Whether the quality is given at the moment."""
        return self.state is State.AVAILABLE

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in _OVER

    @property
    def was_active(self) -> bool:
        """Whether the quality was ever given."""
        return any(change.state is State.AVAILABLE for change in self._history)

    def demand(self) -> None:
        """Raises QosError unless the quality is given now: for who would rather not begin without."""
        if not self.active:
            raise QosError(
                f"quality of service ({self.profile}) is {self.state}: {self.why}; go on without it, or ask for a lesser profile"
            )

    @property
    def held_s(self) -> float:
        """Seconds for which the quality was given so far."""
        history = self.history
        ends = [*(change.at_s for change in history[1:]), time.time()]
        spans = zip(history, ends, strict=True)
        return sum(max(0.0, end - change.at_s) for change, end in spans if change.state is State.AVAILABLE)

    def wait(self, timeout_s: float) -> State:
        """The state once it is no longer REQUESTED, or after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self.state is not State.REQUESTED, timeout_s)
            return self.state

    # what the client, the keeper and the sink tell

    def learn(self, info: SessionInfo) -> None:
        """Take in what the network answered."""
        if not self.over:
            self.info = info
        self._follow(info.qos_status, info.status_info)

    def hear(self, event: CloudEvent) -> None:
        """Take in a notification; one of another session is none of its business."""
        if self.info is None or event.data.session_id == self.info.session_id:
            self._follow(event.data.qos_status, event.data.status_info)

    def turn(self, state: State, why: str) -> None:
        """Change the state; what is over stays so, except that it can be released."""
        with self._changed:
            if state is self.state or (self.over and (state is not State.RELEASED or self.state is State.DENIED)):
                return
            change = Change(state, why, time.time())
            self._history.append(change)
            self._changed.notify_all()
        if self._on_change:
            try:
                self._on_change(self, change)
            except Exception:  # the caller's own; it must not end what keeps other sessions alive
                log.exception("the callback of a QoS session failed")

    def _follow(self, status: QosStatus, reason: StatusInfo | None) -> None:
        if status is QosStatus.AVAILABLE:
            self.turn(State.AVAILABLE, f"the network gives {self.profile}")
        elif status is QosStatus.UNAVAILABLE:
            self.turn(*self._ended(reason))

    def _ended(self, reason: StatusInfo | None) -> tuple[State, str]:
        if reason is StatusInfo.DURATION_EXPIRED:
            return State.EXPIRED, "its duration is over"
        if reason is StatusInfo.DELETE_REQUESTED:
            return State.RELEASED, "it was deleted"
        if self.was_active:
            return State.REVOKED, "the network took it back"
        return State.DENIED, "the network cannot give it now"

    def extension_due_s(self) -> float | None:
        """Seconds until it should be extended, counted from the moment it was asked for, which needs no common clock; None: never."""
        if self.info is None or self.capped or not self.active:
            return None
        lead_s = min(_MOST_LEAD_S, _LEAD * min(self.asked_s, self.info.duration))
        return max(0.0, self.remaining_s() - lead_s)

    def remaining_s(self) -> float:
        """Seconds that its grant lasts at least: the network's own count begins later than this one."""
        return self._asked_at + self.info.duration - time.monotonic() if self.info else 0.0
