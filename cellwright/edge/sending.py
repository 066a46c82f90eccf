"""A file down a connection, by sendfile in small pieces.

One call of sendfile with a whole file holds up every other connection while the kernel takes it. Pieces of half a megabyte let the
others have their turn in between; what that carries on loopback, to one client and to many, is in docs/experiments.md.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import IO, Any

PIECE_BYTES = 512 * 1024


async def send_file(transport: asyncio.Transport, file: IO[Any], offset: int, count: int) -> None:
    """Send `count` bytes from `offset`, after all that was written to the transport before.

    Raises:
        ConnectionError: the other side is gone.
        NotImplementedError: this transport takes no files.
    """
    loop = asyncio.get_running_loop()
    first = count if transport.get_extra_info("sslcontext") else min(count, PIECE_BYTES)
    await loop.sendfile(transport, file, offset, first)  # which also waits for what is still to be written
    if first == count:
        return
    own = os.dup(
        transport.get_extra_info("socket").fileno()
    )  # the transport keeps watch over its own descriptor, and this one is ours
    with socket.socket(fileno=own) as connection:
        await _pieces(loop, transport, connection.fileno(), file.fileno(), offset + first, offset + count)


async def _pieces(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, to: int, source: int, offset: int, stop: int
) -> None:
    while offset < stop:
        if transport.is_closing():
            raise ConnectionResetError("the client is gone")
        try:
            sent = os.sendfile(to, source, offset, min(PIECE_BYTES, stop - offset))
        except BlockingIOError:
            await _writable(loop, to)
            continue
        if not sent:
            raise ConnectionResetError("the file ended before it was sent")
        offset += sent
        await asyncio.sleep(0)  # the others' turn


async def _writable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    ready = loop.create_future()
    loop.add_writer(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
