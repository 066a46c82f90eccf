"""A server in a process of its own, as benchmarks load it; an edge on the event loop that it is shipped with."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

_START_S, _END_S = 60, 20
Serve = Callable[[Path, Connection], None]  # sends its port, and ends when it is sent something


@contextmanager
def process(serve: Serve, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Its port, and the process."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    server = spawn.Process(target=serve, args=(folder, there), daemon=True)
    server.start()
    try:
        if not here.poll(_START_S):
            raise RuntimeError(f"the server did not start within {_START_S} s")
        yield here.recv(), psutil.Process(server.pid)
    finally:
        if server.is_alive():
            here.send("stop")
            server.join(_END_S)
        server.kill()


def edge(folder: Path, pipe: Connection) -> None:
    """An edge of the workspace's folders `published` and `keys` in `folder`."""
    from cellwright.bundle.keys import trusted

    serve_edge(folder / "published", trusted(folder / "keys"), pipe)


def serve_edge(store: Path, trust: Any, pipe: Connection, **how: Any) -> None:
    """Serve until told to stop; `how`: as `Edge` takes it."""
    from cellwright.edge.server import Edge
    from cellwright.web import standing

    async def run() -> None:
        async with Edge(store, trust, port=0, **how) as started:
            pipe.send(started.port)
            await asyncio.to_thread(pipe.recv)

    standing.run(run())
