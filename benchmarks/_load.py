"""HTTP load over kept connections, from one process: a closed loop, or requests at a constant rate.

At a constant rate a request's time counts from when it was due, not from when a connection was free to send it, so that a server
which stalls is seen to (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Outcome:
    """What one load saw. `times_s`: of each answer with status 200."""

    seconds: float = 0.0
    times_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.times_s) / self.seconds

    def ms(self, percent: float) -> float:
        """A percentile of the times."""
        return float(np.percentile(self.times_s, percent) * 1000) if self.times_s else float("nan")


class _Connection(asyncio.Protocol):
    """One request at a time; answers must have a Content-Length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self._seen = transport, bytearray()
        self.answer: asyncio.Future[int] | None = None

    def data_received(self, data: bytes) -> None:
        self._seen += data
        end = self._seen.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._seen[:end]).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(self._seen) >= end + 4 + length and self.answer is not None:
            self._seen.clear()
            answer, self.answer = self.answer, None
            answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error or ConnectionError("the server closed the connection"))

    async def ask(self, message: bytes) -> int:
        self.answer = asyncio.get_running_loop().create_future()
        answer = self.answer
        self.transport.write(message)
        return await answer


def message(path: str, body: bytes) -> bytes:
    """A POST of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def closed(port: int, content: bytes, clients: int, seconds: float) -> Outcome:
    """Each client sends its next request when its answer is there."""
    found, loop = Outcome(), asyncio.get_running_loop()
    each = [(await loop.create_connection(_Connection, "127.0.0.1", port))[1] for _ in range(clients)]
    started = time.perf_counter()

    async def client(connection: _Connection) -> None:
        while (sent := time.perf_counter()) - started < seconds:
            _note(found, await connection.ask(content), time.perf_counter() - sent)

    await asyncio.gather(*map(client, each))
    found.seconds = time.perf_counter() - started
    for connection in each:
        connection.transport.close()
    return found


async def constant(port: int, content: bytes, rate: float, seconds: float, connections: int = 64) -> Outcome:
    """`rate` requests a second, whatever the answers do; a request waits for a free connection on its own account."""
    found, loop = Outcome(), asyncio.get_running_loop()
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait((await loop.create_connection(_Connection, "127.0.0.1", port))[1])
    started = time.perf_counter()

    async def one(due: float) -> None:
        connection = await free.get()
        status = await connection.ask(content)
        _note(found, status, time.perf_counter() - due)
        free.put_nowait(connection)

    tasks = []
    for number in range(int(rate * seconds)):
        due = started + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(loop.create_task(one(due)))
    await asyncio.gather(*tasks)
    found.seconds = time.perf_counter() - started
    while not free.empty():
        free.get_nowait().transport.close()
    return found


def _note(found: Outcome, status: int, seconds: float) -> None:
    found.statuses[status] = found.statuses.get(status, 0) + 1
    if status == 200:
        found.times_s.append(seconds)
