"""Parallel ranges: several connections bring stripes of one blob, which are taken in order.

A connection brings at most one window (what may be on its way unacknowledged) per round trip; where that is the bottleneck, several
bring several. Where the link itself is (one flow, shaped), they bring nothing; so it is tried out, and given up where it does not pay.

Stripes wait in memory until those before them are there, so the file on disk never has a hole: at most `2 × streams` stripes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from cellwright.edge.arriving import Arriving
from cellwright.edge.wire import Broken, Refusal, Transport, refuse

STREAMS = 4
STRIPE_BYTES = 2 << 20
LEAST_RTT_S = 5e-3  # below, a window is large enough for what the hash can follow
LEAST_LEFT_S = 10.0  # a try that does not pay costs about half a second (measured on a shaped flow of 100 Mbit/s): 5 % at most
GAIN = 1.2  # the rate must grow by so much, or one connection goes on alone
_OBSERVED_S, _OBSERVED_RTT = 0.3, 4  # one connection is watched for so long, and for so many round trips


@dataclass
class Pace:
    """Watches one connection, and says when several are worth a try. `rtt_s`: shortest time from request to answer."""

    expected_bytes: int
    rtt_s: float
    enabled: bool = True

    def __post_init__(self) -> None:
        self.rate_bytes_s = 0.0
        self._begun, self._from = time.perf_counter(), -1

    def several(self, size: int) -> bool:
        """Whether to go on with several, at `size` bytes."""
        if not self.enabled or self.rtt_s < LEAST_RTT_S:
            return False
        now = time.perf_counter()
        if self._from < 0:
            self._begun, self._from = now, size
        elapsed_s = now - self._begun
        if size == self._from or elapsed_s < max(_OBSERVED_S, _OBSERVED_RTT * self.rtt_s):
            return False
        self.rate_bytes_s = (size - self._from) / elapsed_s
        return self.rate_bytes_s > 0 and (self.expected_bytes - size) / self.rate_bytes_s > LEAST_LEFT_S


class Ranges:
    """Brings the rest of a blob over several connections; `run` returns when it is there, or when it does not pay."""

    def __init__(self, transports: list[Transport], path: str, arriving: Arriving, alone_bytes_s: float) -> None:
        self._transports, self._path, self._arriving = transports, path, arriving
        self._alone_bytes_s = alone_bytes_s
        self._next, self._ready = arriving.size, dict[int, bytearray]()
        self._changed = threading.Condition()
        self._failed: Broken | Refusal | None = None
        self._ended = False

    def run(self) -> bool:
        """Whether it paid. What came in order is in `arriving` whatever happens.

        Raises:
            Broken, Refusal: of the connection that failed first.
            BundleError, WorkspaceError: as `Arriving.add`.
        """
        threads = [threading.Thread(target=self._work, args=(t,), daemon=True) for t in self._transports]
        for thread in threads:
            thread.start()
        try:
            return self._take(time.perf_counter())
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def _take(self, begun: float) -> bool:
        first, judge_s = self._arriving.size, 2 * max(_OBSERVED_S, STRIPE_BYTES / max(1.0, self._alone_bytes_s))
        judged = False
        while not self._arriving.complete:
            with self._changed:
                self._changed.wait_for(lambda: self._arriving.size in self._ready or self._failed is not None)
                stripe = self._ready.pop(self._arriving.size, None)
            if stripe is None:
                assert self._failed is not None
                raise self._failed
            self._arriving.add(stripe)
            with self._changed:
                self._changed.notify_all()
            elapsed_s = time.perf_counter() - begun
            if not judged and elapsed_s >= judge_s:
                judged = True
                if (self._arriving.size - first) / elapsed_s < GAIN * self._alone_bytes_s:
                    return False
        return True

    def _work(self, transport: Transport) -> None:
        while (span := self._span()) is not None:
            start, stop = span
            room = bytearray(stop - start)
            filled = [0]
            failed: Broken | Refusal | None = None
            try:
                self._bring(transport, start, room, filled)
            except (Broken, Refusal) as error:
                failed = error
            with self._changed:
                if filled[0]:
                    self._ready[start] = room[: filled[0]]
                self._failed = self._failed or failed
                self._changed.notify_all()
            if failed is not None:
                return

    def _bring(self, transport: Transport, start: int, room: bytearray, filled: list[int]) -> None:
        described = self._arriving.described
        headers = {
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{start + len(room) - 1}",
            "If-Range": f'"{described.digest}"',
        }
        view = memoryview(room)
        with transport.get(self._path, headers) as answer:
            refuse(answer, transport.url, self._arriving.what)
            if answer.status != 206 or not answer.header("Content-Range").startswith(f"bytes {start}-"):
                raise Broken("the edge sent another range than was asked for")
            while filled[0] < len(room) and not self._ended and (count := answer.into(view[filled[0] :])):
                filled[0] += count

    def _span(self) -> tuple[int, int] | None:
        """The next stripe to bring, as soon as it is not too far ahead; None: there is none."""
        most = 2 * len(self._transports) * STRIPE_BYTES
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._next < self._arriving.size + most)
            if self._stopped:
                return None
            start = self._next
            self._next = min(start + STRIPE_BYTES, self._arriving.described.size)
            return start, self._next

    @property
    def _stopped(self) -> bool:
        return self._ended or self._failed is not None or self._next >= self._arriving.described.size
