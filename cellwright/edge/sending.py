"""Files to sockets by sendfile, without the event loop where that pays.

Fast clients are served by threads: the kernel sends a piece of the file in one call, on a socket that blocks meanwhile, and wakes nobody
in between. The queue of what is not sent yet is kept short (TCP_NOTSENT_LOWAT), so that a page is still in the processor's cache when
it is sent: a third of the sender's CPU time is saved (docs/experiments.md). A thread that a client holds up goes back to the pool, and
the event loop sends the rest whenever there is room, as it does where all threads are taken. Encrypted bytes go neither way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

_LEAST_BYTES = 1 << 20  # what is shorter is sent before a thread has woken
_PIECE_BYTES = 8 << 20  # after each a thread looks how fast the client is
_SLOW_BYTES_S = 12.5e6  # 100 Mbit/s: no client that is slower holds a thread
_WAIT_S = 0.1  # nor one that takes nothing for so long
_UNSENT_BYTES = 128 << 10
_UNLIMITED = 0
_CORK = getattr(socket, "TCP_CORK", None)  # Linux; None: this system has no such option, and does without
# Python names it from 3.12 on; its number is Linux's, another system's is another
_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)


class Senders:
    """The threads that one server sends files with; `busy`: how many do."""

    def __init__(self, most: int = 64) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="send")
        self._most, self.busy = most, 0

    async def send(self, transport: asyncio.Transport, file: int, offset: int, count: int) -> None:
        """Send `count` bytes of an open file, from `offset` on; nothing else may be written meanwhile.

        Raises:
            OSError: the client is gone; TimeoutError: it took nothing for longer than its socket's TCP_USER_TIMEOUT.
        """
        with _own(transport) as line:
            if count >= _LEAST_BYTES and self.busy < self._most and not transport.get_write_buffer_size():
                sent = await self._in_thread(transport, line, file, offset, count)
                offset, count = offset + sent, count - sent
            await _by_loop(line, file, offset, count)

    def close(self) -> None:
        """Let the threads end; no file is being sent any more."""
        self._pool.shutdown()

    async def _in_thread(self, transport: asyncio.Transport, line: socket.socket, file: int, offset: int, count: int) -> int:
        """Bytes that a thread sent: all of them, or those until the client was too slow for one."""
        self.busy += 1
        try:
            with _blocking(transport, line):
                sending = asyncio.get_running_loop().run_in_executor(self._pool, _sent, line.fileno(), file, offset, count)
                try:
                    return await asyncio.shield(sending)
                except asyncio.CancelledError:
                    with suppress(OSError):  # the client may be gone already
                        line.shutdown(socket.SHUT_RDWR)  # wakes the thread
                    await _over(sending)
                    raise
        finally:
            self.busy -= 1


@contextmanager
def _own(transport: asyncio.Transport) -> Iterator[socket.socket]:
    """The connection's socket under a descriptor of ours, which stays valid when the transport closes its own."""
    theirs = transport.get_extra_info("socket")
    if theirs is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    with socket.socket(fileno=os.dup(theirs.fileno())) as line:
        yield line


@contextmanager
def _blocking(transport: asyncio.Transport, line: socket.socket) -> Iterator[None]:
    """The socket blocks, and the event loop does not touch it."""
    reading = transport.is_reading()
    transport.pause_reading()
    _set(line, _CORK, 1)
    _set(line, _LOWAT, _UNSENT_BYTES)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, int(_WAIT_S * 1e6)))
    os.set_blocking(line.fileno(), True)
    try:
        yield
    finally:
        os.set_blocking(line.fileno(), False)
        _set(line, _LOWAT, _UNLIMITED)
        _set(line, _CORK, 0)
        if reading and not transport.is_closing():
            transport.resume_reading()


def _set(line: socket.socket, option: int | None, value: int) -> None:
    if option is not None:
        line.setsockopt(socket.IPPROTO_TCP, option, value)


def _sent(line: int, file: int, offset: int, count: int) -> int:
    """Bytes sent before the client became slow, or all."""
    sent = 0
    while sent < count:
        piece, begun = min(_PIECE_BYTES, count - sent), time.monotonic()
        try:
            part = os.sendfile(line, file, offset + sent, piece)
        except BlockingIOError:  # SO_SNDTIMEO
            return sent
        _check(part)
        sent += part
        if part < piece or part < (time.monotonic() - begun) * _SLOW_BYTES_S:
            return sent
    return sent


async def _by_loop(line: socket.socket, file: int, offset: int, count: int) -> None:
    """Whenever there is room."""
    while count:
        try:
            part = os.sendfile(line.fileno(), file, offset, min(_PIECE_BYTES, count))
        except BlockingIOError:
            await _room(line)
            continue
        _check(part)
        offset, count = offset + part, count - part
        if count:
            await asyncio.sleep(0)  # a client that always has room is not the only one


async def _over(sending: asyncio.Future[int]) -> None:
    """Wait for a thread, however often that is cancelled: its descriptors must not become others' while it sends."""
    while not sending.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([sending])


async def _room(line: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(line, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(line)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _check(part: int) -> None:
    if not part:
        raise ConnectionAbortedError(
            "the file became shorter while it was sent; the connection ends, so that no one takes it for whole"
        )
