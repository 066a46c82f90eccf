"""Hub, network and edges, each in a process of its own that ends with the block that started it, or with its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cellwright.edge.acceleration import NetworkAccess
from cellwright.edge.agent import Hub
from cellwright.errors import CellwrightError
from cellwright.qos.simulator.options import NetworkOptions
from cellwright.qos.simulator.state import State

_START_S, _STOP_S = 120.0, 30.0
_PROCESSES = multiprocessing.get_context("forkserver")  # libraries are loaded once; no child inherits a thread or a lock
_PROCESSES.set_forkserver_preload(["cellwright.hub.serve", "cellwright.edge.serve", "cellwright.qos.simulator.network"])
Runs = Callable[..., AbstractContextManager[Any]]


@contextmanager
def process(runs: Runs, *args: object) -> Iterator[Any]:
    """`runs(*args)`, a context manager, entered in a child while the block runs; yields what it yields there.

    Raises:
        CellwrightError: it could not be entered, or not within two minutes.
    """
    ours, theirs = _PROCESSES.Pipe()
    child = _PROCESSES.Process(target=_child, args=(theirs, runs, args), daemon=True)
    child.start()
    theirs.close()
    try:
        yield _first_word(ours, runs.__name__)
    finally:
        ours.close()
        child.join(_STOP_S)
        if child.is_alive():
            child.kill()
            child.join()


def _first_word(pipe: Connection, name: str) -> Any:
    if not pipe.poll(_START_S):
        raise CellwrightError(f"{name} did not start within {_START_S:g} s; is this machine very busy?")
    try:
        return pipe.recv()
    except EOFError:
        raise CellwrightError(f"{name} ended while it started; its last words are above") from None


def _child(pipe: Connection, runs: Runs, args: tuple[object, ...]) -> None:
    with runs(*args) as told:
        pipe.send(told)
        with contextlib.suppress(EOFError):
            pipe.recv()  # until the parent closes its end, or is gone


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """The operator's hub; yields its address."""
    from cellwright.hub.serve import in_thread
    from cellwright.hub.service import open_hub

    with open_hub(folder) as opened, in_thread(opened) as url:
        yield url


@contextmanager
def network(options: NetworkOptions) -> Iterator[State]:
    """The simulated network; yields its address and tokens."""
    from cellwright.qos.simulator.network import Network, in_thread

    with in_thread(Network(options)) as running:
        yield State(url=running.url, token=running.token("operator"), control_token=running.control_token)


@dataclass(frozen=True)
class EdgeOptions:
    """What an edge is started with."""

    store: Path
    port: int
    hub: Hub
    network: NetworkAccess


@contextmanager
def edge(options: EdgeOptions) -> Iterator[str]:
    """An edge that the hub tells what to hold; yields its own address (devices reach it through the network)."""
    from cellwright.edge.serve import in_thread
    from cellwright.edge.server import Edge

    server = Edge(options.store, {}, port=options.port, hub=options.hub, network=options.network)
    with in_thread(server) as running:
        yield running.url


def free_port() -> int:
    """A port of loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
