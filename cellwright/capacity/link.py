"""A simulated link that its transfers share evenly, each at most at a cap: O(log n) an event, by virtual time."""

from __future__ import annotations

import heapq
from typing import Any

_ROUNDING = 1e-12  # relative


class SharedLink:
    """Processor sharing in a simpy environment.

    All transfers attain service at the same rate, `min(cap, capacity / n)`. So it is enough to follow one clock, the service
    attained by anyone who was always there; a transfer of `b` bits ends when that clock has gone on by `b`, and a heap tells
    who is next. Nobody's remaining bits are ever touched.
    """

    def __init__(self, env: Any, capacity_bit_s: float, cap_bit_s: float = float("inf")) -> None:
        self._env, self._capacity, self._cap = env, capacity_bit_s, cap_bit_s
        self._clock_bits, self._since_s = 0.0, 0.0
        self._ends: list[tuple[float, int, Any]] = []  # (clock at the end, number, event)
        self._number, self._alarm = 0, 0
        self.moved_bits, self.busiest_bit_s = 0.0, 0.0

    def transfer(self, bits: float) -> Any:
        """An event that happens when these bits are through."""
        self._advance()
        done = self._env.event()
        self._number += 1
        heapq.heappush(self._ends, (self._clock_bits + bits, self._number, done))
        self._next()
        return done

    def _rate(self) -> float:
        return min(self._cap, self._capacity / len(self._ends)) if self._ends else 0.0

    def _advance(self) -> None:
        """Bring the clock up to now."""
        rate, passed = self._rate(), self._env.now - self._since_s
        self._clock_bits += rate * passed
        self.moved_bits += rate * passed * len(self._ends)
        self._since_s = self._env.now

    def _next(self) -> None:
        """Wake up at the next end; an alarm set before is out of date."""
        self._alarm += 1
        rate = self._rate()
        self.busiest_bit_s = max(self.busiest_bit_s, rate * len(self._ends))
        if self._ends:
            alarm = self._env.timeout(max(0.0, (self._ends[0][0] - self._clock_bits) / rate), value=self._alarm)
            alarm.callbacks.append(self._end)

    def _end(self, alarm: Any) -> None:
        if alarm.value != self._alarm:
            return
        self._advance()
        self._clock_bits = max(self._clock_bits, self._ends[0][0])
        due = self._clock_bits * (1 + _ROUNDING)
        while self._ends and self._ends[0][0] <= due:
            heapq.heappop(self._ends)[2].succeed()
        if not self._ends:
            self._clock_bits = 0.0  # nobody is there: begin again, so that rounding does not grow
        self._next()
