"""How exact and how fast the network simulator's forwarder is on loopback: rates, a change mid-transfer, delay, no limit.

    python benchmarks/network_shaper.py [--seconds 3]

The sender and the receiver are processes of their own; the forwarder runs in this one, so its CPU time can be read apart.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import socket
import threading
import time
from multiprocessing.queues import Queue

from cellwright.qos.simulator.shaper import Conditions, Path, Rules, Shaper

RATES_BIT_S = (1e6, 22e6, 100e6, 640e6, 1.1e9, 2e9, 4.3e9)
WHOLE_BYTES = 2 << 30


class Set(Rules):
    """One flow, whose rate is set by hand."""

    rate_bit_s: float | None = None
    delay_s = 0.0

    def put(self, rate_bit_s: float | None, delay_s: float = 0.0) -> None:
        self.rate_bit_s, self.delay_s = rate_bit_s, delay_s
        self.version += 1

    def conditions(self, path: Path) -> Conditions:
        return Conditions("flow", self.rate_bit_s, self.rate_bit_s, self.delay_s)


def send(ports: Queue) -> None:
    """A server that sends 2 GiB to everybody."""
    server = socket.create_server(("127.0.0.1", 0))
    ports.put(server.getsockname()[1])
    block = bytes(1 << 20)

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                for _ in range(WHOLE_BYTES // len(block)):
                    connection.sendall(block)
            except OSError:
                return

    while True:
        threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()


def receive(port: int, seconds: float | None) -> tuple[int, float]:
    """Bytes and seconds until the end, or until the time is over."""
    buffer, got, begin = bytearray(1 << 20), 0, time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while (size := connection.recv_into(buffer)) and (seconds is None or time.monotonic() - begin < seconds):
            got += size
    return got, time.monotonic() - begin


def reaction_s(port: int, rules: Set) -> float:
    """Seconds from a change of 10 to 200 Mbit/s until what arrived since then exceeds what 10 Mbit/s would bring within a second."""
    rules.put(10e6)
    buffer = bytearray(1 << 16)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        begin = time.monotonic()
        while time.monotonic() - begin < 1.0:
            connection.recv_into(buffer)
        rules.put(200e6)
        got, changed = 0, time.monotonic()
        while got < 10e6 / 8:
            got += connection.recv_into(buffer)
        return time.monotonic() - changed - 10e6 / 200e6


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    seconds = parser.parse_args().seconds
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    sender = context.Process(target=send, args=(ports,), daemon=True)
    sender.start()
    direct, rules, loop = ports.get(), Set(), asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    through = asyncio.run_coroutine_threadsafe(Shaper(rules).listen(("127.0.0.1", direct)), loop).result().port
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with context.Pool(1) as pool:
        pool.apply(abs, (1,))
        for name, port in (("direct", direct), ("through the forwarder, no limit", through)):
            cpu_s = time.process_time()
            got, took_s = pool.apply(receive, (port, None))
            cpu_s = time.process_time() - cpu_s
            print(f"{name}: {got * 8 / took_s / 1e9:.2f} Gbit/s; {cpu_s / (got / 1e9):.2f} CPU-s a GB here")
        for rate in RATES_BIT_S:
            rules.put(rate)
            got, took_s = pool.apply(receive, (through, seconds))
            print(f"{rate / 1e6:.0f} Mbit/s: {got * 8 / took_s / 1e6:.2f} ({100 * (got * 8 / took_s / rate - 1):+.2f} %)")
        rules.put(100e6, 0.05)
        got, took_s = pool.apply(receive, (through, seconds))
        print(f"100 Mbit/s with 50 ms one way: {got * 8 / took_s / 1e6:.2f} Mbit/s, the first 100 ms included")
        rules.put(None)
    print(f"a change takes effect within {1000 * max(reaction_s(through, rules) for _ in range(5)):.0f} ms (worst of 5)")
    sender.terminate()


if __name__ == "__main__":
    main()
