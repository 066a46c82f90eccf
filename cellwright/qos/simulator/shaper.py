"""A TCP forwarder between devices and edges whose rates follow the network's sessions, mid-transfer.

Each direction of a flow has one token bucket that all its connections share. Which bucket, and at which rate, is looked up for every
chunk, so a session that begins, ends or changes takes effect within a chunk's time (`_CHUNK_S`, or one wait of `_SLICE_S`).
Delay is one way and constant; stalls are moments in which nothing passes, as TCP shows after a loss. No packets, no radio.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from cellwright.errors import QosError
from cellwright.qos.simulator.bucket import Bucket

log = logging.getLogger(__name__)
_MOST_CHUNK, _LEAST_CHUNK = 512 * 1024, 2048
_CHUNK_S, _SLICE_S = 0.01, 0.05
_CONNECT_S = 10.0
_LONGEST_QUEUE = 64 * 1024 * 1024  # bytes that are on their way where there is delay


@dataclass(frozen=True)
class Path:
    """One connection through the network: whose it is, and where it leads. `device`: name, or the address of one that is not known."""

    device: str
    device_port: int
    target: tuple[str, int]
    entrance: tuple[str, int]


@dataclass(frozen=True)
class Conditions:
    """What a path is given at the moment. `flow`: paths of the same flow share their rates."""

    flow: str
    down_bit_s: float | None = None
    up_bit_s: float | None = None
    delay_s: float = 0.0
    stalls_per_s: float = 0.0
    stall_s: float = 0.0


class Rules(ABC):
    """How a shaper learns of conditions. `version` changes whenever any of them may have."""

    version: int = 0

    @abstractmethod
    def conditions(self, path: Path) -> Conditions:
        """The present conditions of a path."""

    def device_at(self, address: str) -> str:
        """The name of the device with an address, or the address itself."""
        return address


@dataclass
class Link:
    """An entrance: connections to `host`:`port` reach `target` through the network."""

    host: str
    port: int
    target: tuple[str, int]
    device: str | None
    carried_down: int = 0  # bytes
    carried_up: int = 0
    server: socket.socket | None = field(default=None, repr=False)
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Shaper:
    """Forwards connections in the running event loop. Close it with `close()`."""

    def __init__(self, rules: Rules, *, seed: int = 0) -> None:
        self.rules, self.links = rules, list[Link]()
        self._rng = random.Random(seed)  # noqa: S311  # stalls that can be repeated; no secret
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._connections: dict[asyncio.Task[None], tuple[str, tuple[socket.socket, ...]]] = {}

    async def listen(self, target: tuple[str, int], *, device: str | None = None, host: str = "127.0.0.1", port: int = 0) -> Link:
        """Open an entrance. `device`: whose connections arrive there; None: they are told apart by their address.

        Raises:
            QosError: the port is taken.
        """
        try:
            server = socket.create_server((host, port), backlog=1024)
        except OSError as error:
            raise QosError(f"cannot listen on {host}:{port} ({error.strerror}); choose another port, or 0 for any") from error
        server.setblocking(False)
        link = Link(host, server.getsockname()[1], target, device, server=server)
        link.task = asyncio.create_task(self._accept(link, server))
        self.links.append(link)
        return link

    def cut(self, device: str) -> int:
        """Break all connections of a device at once (reset); how many."""
        meant = [(task, sockets) for task, (name, sockets) in self._connections.items() if name == device]
        for task, sockets in meant:
            for one in sockets:
                _reset(one)
            task.cancel()
        return len(meant)

    async def close(self) -> None:
        """Close all entrances and connections."""
        tasks = [link.task for link in self.links if link.task] + list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self.links:
            if link.server:
                link.server.close()

    async def _accept(self, link: Link, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                near, address = await loop.sock_accept(server)
            except OSError as error:  # no file descriptor left: the others go on
                log.warning("entrance %s:%d: %s", link.host, link.port, error)
                await asyncio.sleep(0.1)
                continue
            device = link.device or self.rules.device_at(address[0])
            far = socket.socket(socket.AF_INET6 if ":" in link.target[0] else socket.AF_INET, socket.SOCK_STREAM)
            path = Path(device, address[1], link.target, (link.host, link.port))
            task = asyncio.create_task(self._carry(link, path, near, far))
            self._connections[task] = (device, (near, far))
            task.add_done_callback(lambda done: self._connections.pop(done, None))

    async def _carry(self, link: Link, path: Path, near: socket.socket, far: socket.socket) -> None:
        """One connection, both ways, until both ends have closed or one breaks."""
        with near, far:
            for one in (near, far):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await asyncio.get_running_loop().sock_connect(far, link.target)
                down, up = _Pump(self, link, path, "down"), _Pump(self, link, path, "up")
                await _together(down.run(far, near), up.run(near, far))
            except (OSError, TimeoutError) as error:  # an end broke the connection: so does the network
                _reset(near)
                log.info("%s to %s: %s", path.device, link.target, error)

    def bucket(self, conditions: Conditions, direction: str) -> Bucket:
        """The bucket of a flow's direction, at its present rate."""
        rate = conditions.down_bit_s if direction == "down" else conditions.up_bit_s
        found = self._buckets.setdefault((conditions.flow, direction), Bucket(rate))
        found.rate_bit_s = rate
        return found

    def stall_in_s(self, per_s: float) -> float:
        """A random time until the next stall."""
        return self._rng.expovariate(per_s) if per_s > 0 else float("inf")


class _Pump:
    """One direction of one connection."""

    def __init__(self, shaper: Shaper, link: Link, path: Path, direction: str) -> None:
        self._shaper, self._link, self._path, self._direction = shaper, link, path, direction
        self._version = -1
        self._stall_at = float("inf")
        self._now = Conditions("")

    async def run(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry bytes until the source ends, then end the sink."""
        self._look()
        if self._now.delay_s > 0:
            await self._delayed(source, sink)
        else:
            loop, buffer = asyncio.get_running_loop(), bytearray(_MOST_CHUNK)
            view = memoryview(buffer)
            while size := await loop.sock_recv_into(source, view[: self._chunk()]):
                await self._pay(size)
                await loop.sock_sendall(sink, view[:size])
                await asyncio.sleep(0)  # sockets that are always ready would let nobody else have a turn
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _delayed(self, source: socket.socket, sink: socket.socket) -> None:
        """As above, each chunk arriving `delay_s` after it was let pass."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        room = _Room(_LONGEST_QUEUE)
        loop = asyncio.get_running_loop()

        async def arrive() -> None:
            while True:
                due_at, chunk = await on_the_way.get()
                if (left_s := due_at - time.monotonic()) > 0:
                    await asyncio.sleep(left_s)
                if not chunk:
                    return
                await loop.sock_sendall(sink, chunk)
                room.leave(len(chunk))

        async def depart() -> None:
            chunk = b"-"
            while chunk:
                chunk = await loop.sock_recv(source, self._chunk())
                await self._pay(len(chunk))
                await room.enter(len(chunk))
                on_the_way.put_nowait((time.monotonic() + self._now.delay_s, chunk))

        await _together(arrive(), depart())

    def _look(self) -> None:
        """Take in changed conditions."""
        if self._version == self._shaper.rules.version:
            return
        self._version = self._shaper.rules.version
        before, self._now = self._now.stalls_per_s, self._shaper.rules.conditions(self._path)
        if self._now.stalls_per_s != before:
            self._stall_at = time.monotonic() + self._shaper.stall_in_s(self._now.stalls_per_s)

    def _chunk(self) -> int:
        """Bytes to read at once: few where the rate is low, so that a change is felt soon."""
        self._look()
        rate = self._now.down_bit_s if self._direction == "down" else self._now.up_bit_s
        return _MOST_CHUNK if rate is None else int(max(_LEAST_CHUNK, min(_MOST_CHUNK, rate / 8 * _CHUNK_S)))

    async def _pay(self, size: int) -> None:
        """Wait until so many bytes may pass."""
        self._count(size)
        await self._stall()
        self._look()
        bucket = self._shaper.bucket(self._now, self._direction)
        if bucket.rate_bit_s is None:
            return
        ticket = bucket.reserve(size)
        while (wait_s := bucket.wait_s(ticket)) > 0:
            await asyncio.sleep(min(wait_s, _SLICE_S))
            self._look()
            now = self._shaper.bucket(self._now, self._direction)
            if now is not bucket:
                bucket.cancel(size)
                bucket, ticket = now, now.reserve(size)

    async def _stall(self) -> None:
        if time.monotonic() >= self._stall_at:
            await asyncio.sleep(self._now.stall_s)
            self._stall_at = time.monotonic() + self._shaper.stall_in_s(self._now.stalls_per_s)

    def _count(self, size: int) -> None:
        if self._direction == "down":
            self._link.carried_down += size
        else:
            self._link.carried_up += size


class _Room:
    """Bytes that may be on their way at once."""

    def __init__(self, most: int) -> None:
        self._left, self._freed = most, asyncio.Event()

    async def enter(self, size: int) -> None:
        while self._left < size:
            self._freed.clear()
            await self._freed.wait()
        self._left -= size

    def leave(self, size: int) -> None:
        self._left += size
        self._freed.set()


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Run some works until all are done; the first that fails ends the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(connection: socket.socket) -> None:
    """Let a connection break, not end, when it is closed: the other side must not take it for the whole."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
