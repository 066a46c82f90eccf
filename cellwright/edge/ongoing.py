"""What is known of a fetch while it goes on: what is still to come, what time is left, and what there is to report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from cellwright.edge.bringing import Bringing
from cellwright.edge.contract import Quality
from cellwright.edge.download import Download
from cellwright.edge.finding import Found

_SHORTEST_S = 1e-6


@dataclass
class Ongoing:
    """One fetch. `started`: on the performance counter; `deadline_s`: from then on."""

    found: Found
    started: float
    deadline_s: float | None
    version: str | None = None
    seconds: float = 0.0  # until all was verified
    streams: int = 1
    download: Download | None = None
    bringing: Bringing | None = None
    qos: Quality | None = None
    qos_held_s: float | None = None
    notes: list[str] = field(default_factory=list)
    _planned_bytes: int | None = None
    _before_bytes: int = 0  # received before the plan was made

    def plan(self, needed_bytes: int) -> None:
        """So much is still to come."""
        self._planned_bytes, self._before_bytes = needed_bytes, self.received_bytes

    @property
    def received_bytes(self) -> int:
        """Over the network so far."""
        return self.download.received_bytes if self.download else 0

    @property
    def left_bytes(self) -> int | None:
        """Still to come; the whole model as long as there is no plan; None: nobody knows."""
        if self._planned_bytes is None:
            return self.found.bytes
        return max(1, self._planned_bytes - (self.received_bytes - self._before_bytes))

    @property
    def left_s(self) -> float | None:
        """Of the deadline; where that is past, what is still to come gets its share of it: the pace that was asked for."""
        if self.deadline_s is None:
            return None
        left_s = self.deadline_s - (time.perf_counter() - self.started)
        return max(_SHORTEST_S, left_s if left_s > 0 else self.pace_s(self.deadline_s))

    def pace_s(self, within_s: float) -> float:
        """The share of `within_s` that belongs to what is still to come."""
        if not self._planned_bytes or self.left_bytes is None:
            return within_s
        return within_s * min(1.0, self.left_bytes / self._planned_bytes)
