"""What makes sendfile fast: ways of sending one file over loopback, side by side.

    python benchmarks/sendfile.py                       # prints a table: Gbit/s, and the sender's CPU seconds a GB
    python benchmarks/sendfile.py --clients 8 --megabytes 64 --ways "loop" "loop, corked"

Each way is a process of its own that sends the file again and again on each connection; all clients are one process that lets the
kernel throw away what arrives (recv with MSG_TRUNC). Ways are words joined by commas:

    loop      the socket does not block; epoll says when there is room, as an event loop does
    thread    a thread for each client, its socket blocks
    corked    TCP_CORK: segments leave whole
    unsent    TCP_NOTSENT_LOWAT of 128 kB
    pieces    512 kB a call
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import selectors
import socket
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import psutil

WAYS = (
    "loop",
    "loop, pieces",
    "loop, unsent",
    "loop, corked",
    "thread",
    "thread, unsent",
    "thread, corked",
    "thread, corked, unsent",
)
_LOWAT, _UNSENT_BYTES, _PIECE_BYTES = 25, 128 << 10, 512 << 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=512)
    given = parser.parse_args()
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(given.megabytes):
            file.write(os.urandom(1 << 20))
        file.flush()
        rates = {way: list[tuple[float, float]]() for way in given.ways}
        senders = {way: _start(Path(file.name), way) for way in given.ways}
        for _ in range(given.rounds):  # in turns, so that other work on the machine meets all
            for way, (process, port) in senders.items():
                rates[way].append(_received(process, port, given.clients, given.seconds))
        for process, _ in senders.values():
            process.kill()
    print(f"{given.clients} clients, {given.megabytes} MB, median of {given.rounds} rounds of {given.seconds:g} s\n")
    print("| way | Gbit/s | rounds | CPU-s a GB |\n| --- | --- | --- | --- |")
    for way, found in rates.items():
        each = ", ".join(f"{rate:.1f}" for rate, _ in found)
        print(f"| {way} | {median(r for r, _ in found):.1f} | {each} | {median(c for _, c in found):.2f} |")


def _start(path: Path, way: str) -> tuple[psutil.Process, int]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(path, way, there), daemon=True)
    process.start()
    return psutil.Process(process.pid), here.recv()


def _serve(path: Path, way: str, pipe: Connection) -> None:
    how = {word.strip() for word in way.split(",")}
    file = os.open(path, os.O_RDONLY)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server, selectors.DefaultSelector() as selector:
        pipe.send(server.getsockname()[1])
        selector.register(server, selectors.EVENT_READ, None)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    _loop(selector, key.fileobj, file, key.data, how)
                    continue
                line, _ = server.accept()
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as event loops do
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, "corked" in how)
                line.setsockopt(socket.IPPROTO_TCP, _LOWAT, _UNSENT_BYTES if "unsent" in how else 0)
                if "thread" in how:
                    threading.Thread(target=_block, args=(line, file, how), daemon=True).start()
                else:
                    line.setblocking(False)
                    selector.register(line, selectors.EVENT_WRITE, [0])


def _loop(selector: selectors.BaseSelector, line: socket.socket, file: int, at: list[int], how: set[str]) -> None:
    try:
        while True:
            at[0] += _send(line, file, at[0], how)
    except BlockingIOError:
        return
    except OSError:  # the client has gone
        selector.unregister(line)
        line.close()


def _block(line: socket.socket, file: int, how: set[str]) -> None:
    at = 0
    with line:
        try:
            while True:
                at += _send(line, file, at, how)
        except OSError:
            return


def _send(line: socket.socket, file: int, at: int, how: set[str]) -> int:
    size = os.fstat(file).st_size
    offset = at % size
    return os.sendfile(line.fileno(), file, offset, min(size - offset, _PIECE_BYTES if "pieces" in how else size))


def _received(process: psutil.Process, port: int, clients: int, seconds: float) -> tuple[float, float]:
    """Gbit/s, and CPU seconds of the sender a GB."""
    room, received = bytearray(1 << 20), 0
    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    with selectors.DefaultSelector() as selector:
        for line in lines:
            selector.register(line, selectors.EVENT_READ)
        started, cpu_s = time.perf_counter(), sum(process.cpu_times()[:2])
        while (took_s := time.perf_counter() - started) < seconds:
            for key, _ in selector.select(1.0):
                received += key.fileobj.recv_into(room, len(room), socket.MSG_TRUNC)
        cpu_s = sum(process.cpu_times()[:2]) - cpu_s
    for line in lines:
        line.close()
    return received * 8 / took_s / 1e9, cpu_s / received * 1e9


if __name__ == "__main__":
    main()
