"""Servers that are asynchronous context managers, run in a thread beside other work, or until a signal ends them.

Both on uvloop, which costs a request less than asyncio's own event loop does (docs/experiments.md).
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

import uvloop

_Server = TypeVar("_Server", bound=AbstractAsyncContextManager[Any])


@contextmanager
def in_thread(server: _Server, name: str) -> Iterator[_Server]:
    """Serve in a thread of its own while the block runs; what the server raises at its start is raised here."""
    ready, failed = threading.Event(), list[BaseException]()
    handles: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def until_told() -> None:
        stop = asyncio.Event()
        handles.append((asyncio.get_running_loop(), stop))
        try:
            async with server:
                ready.set()
                await stop.wait()
        except Exception as error:  # handed to the thread that started this one
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: run(until_told()), name=name, daemon=True)
    thread.start()
    ready.wait()
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield server
    finally:
        loop, stop = handles[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Until it ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def until_signal(server: _Server, on_ready: Callable[[_Server], None] | None) -> None:
    """Serve until SIGINT or SIGTERM; `on_ready` is called once the server has started."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with server:
        if on_ready:
            on_ready(server)
        await stop.wait()
