"""How often a tenant asks."""

from __future__ import annotations

import threading


class Meter:
    """A bucket a tenant: it fills with the quota within a minute, each request takes one out. In this process only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}  # tenant -> what is left, as of when

    def take(self, tenant: str, per_minute: int, now_s: float, count: int = 1) -> float:
        """Take `count` (a whole minute's at most); returns seconds to wait, 0 where so many were left."""
        count = min(count, per_minute)
        with self._lock:
            left, since_s = self._left.get(tenant, (float(per_minute), now_s))
            left = min(float(per_minute), left + max(0.0, now_s - since_s) * per_minute / 60)
            wait_s = 0.0 if left >= count else (count - left) * 60 / per_minute
            self._left[tenant] = (left - count if left >= count else left, now_s)
        return wait_s
