"""A token bucket that several connections share, first come, first served; its rate may change at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_S = 0.05  # what an idle flow may send at once, as time at its rate


class Bucket:
    """Counts bytes: `_head` of them were allowed so far, `_reserved` were asked for. `rate_bit_s=None`: no limit."""

    def __init__(self, rate_bit_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_bit_s, self._clock = rate_bit_s, clock
        self._head = 0.0
        self._reserved = 0
        self._at = clock()

    @property
    def rate_bit_s(self) -> float | None:
        """Bits a second; from the moment on at which it is set."""
        return self._rate_bit_s

    @rate_bit_s.setter
    def rate_bit_s(self, rate_bit_s: float | None) -> None:
        if rate_bit_s != self._rate_bit_s:
            self._advance()
            self._rate_bit_s = rate_bit_s

    def reserve(self, size_bytes: int) -> float:
        """A place in the queue for so many bytes; they may pass once `wait_s` of it is 0."""
        self._advance()
        self._reserved += size_bytes
        return float(self._reserved)

    def cancel(self, size_bytes: int) -> None:
        """Give a place up."""
        self._advance()
        self._reserved -= size_bytes
        self._head = min(self._head, self._most())

    def wait_s(self, ticket: float) -> float:
        """Seconds until a place's bytes may pass, at the present rate."""
        self._advance()
        if self._rate_bit_s is None:
            return 0.0
        return max(0.0, (ticket - self._head) * 8 / self._rate_bit_s)

    def _advance(self) -> None:
        now = self._clock()
        if self._rate_bit_s is None:
            self._head = float(self._reserved)
        else:
            self._head = min(self._head + self._rate_bit_s / 8 * (now - self._at), self._most())
        self._at = now

    def _most(self) -> float:
        return self._reserved + (self._rate_bit_s or 0.0) / 8 * BURST_S
