"""How fast models reach devices: one large one, and many at once.

    python benchmarks/distribution.py                    # everything, and benchmarks/results/<date>-distribution.md
    python benchmarks/distribution.py --only one         # one part: one, many, server
    python benchmarks/distribution.py --devices 500 --seconds 6 --dry

The edge runs in a process of its own, the devices in this one, over loopback. Large: `Download.blob` as a device runs it, received
bytes hashed, compared with the manifest's digest and discarded; then once more to disk, writing and synchronising timed apart. Many:
each device opens a connection of its own at a random moment (Poisson arrivals), asks for the 3.2 MB file, hashes what comes and
compares; its time counts from the moment it was due, so that a server which stalls is seen to. Then the rate is raised until it breaks.
Server: the same large file to 1, 8 and 64 clients that only count bytes, from the edge and from nginx.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import platform
import random
import socket
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
from _distribution_server import measure, table
from _served import process, serve_edge
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cellwright.bundle import store
from cellwright.bundle.keys import key_id
from cellwright.bundle.layout import About
from cellwright.bundle.manifest import Manifest
from cellwright.bundle.wrap import wrap

LARGE_BYTES, SMALL_BYTES = 536_870_912, 3_200_000
LARGE, SMALL = "large", "small"
DEADLINE_S = 1.0
_LONGEST_S = 30.0  # a device gives up
_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)


@dataclass
class Crowd:
    """What many devices saw."""

    devices: int
    seconds: float  # over which they arrived
    times_s: list[float] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)  # reason -> devices
    server_cpu_s: float = 0.0
    server_peak_bytes: int = 0

    @property
    def rate(self) -> float:
        return self.devices / self.seconds

    @property
    def in_time(self) -> float:
        """Share of all devices that had the verified model within the deadline."""
        return sum(t <= DEADLINE_S for t in self.times_s) / self.devices

    def ms(self, percent: float) -> float:
        return float(np.percentile(self.times_s, percent) * 1000) if self.times_s else float("nan")


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("one", "many", "server"))
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="over which they arrive")
    parser.add_argument("--large-bytes", type=int, default=LARGE_BYTES)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    sections = [_head()]
    with tempfile.TemporaryDirectory() as folder:
        published = publish(Path(folder), options.large_bytes)
        if options.only in (None, "one"):
            sections.append(one(Path(folder), published[LARGE]))
        if options.only in (None, "many"):
            sections.append(many(Path(folder), published[SMALL], options.devices, options.seconds))
    if options.only in (None, "server"):
        sections.append(beside_nginx(options.large_bytes))
    text = "\n\n".join(sections) + "\n"
    print(text)
    if not options.dry:
        (options.out / f"{datetime.now(UTC):%Y-%m-%d}-distribution.md").write_text(text)


def _head() -> str:
    cores, memory = os.cpu_count(), psutil.virtual_memory().total / 2**30
    return (
        f"# Distribution, {datetime.now(UTC):%Y-%m-%d}\n\n`python benchmarks/distribution.py`; {cores} cores ({platform.machine()}), "
        f"{memory:.0f} GiB, Python {platform.python_version()}, load at the start {os.getloadavg()[0]:.1f}. Loopback: edge and devices "
        "share the cores."
    )


# the edge


def publish(folder: Path, large_bytes: int) -> dict[str, Manifest]:
    """Two signed file bundles in a store."""
    key = Ed25519PrivateKey.generate()
    (folder / "trust.bin").write_bytes(key.public_key().public_bytes_raw())
    found = {}
    for name, size in ((LARGE, large_bytes), (SMALL, SMALL_BYTES)):
        path = folder / "file"
        with path.open("wb") as out:
            for at in range(0, size, 1 << 22):
                out.write(random.Random(at).randbytes(min(1 << 22, size - at)))
        about = About(name, "1.0.0", name, "opaque", "", 0, None, None)
        found[name] = wrap(folder / "packed" / name, path, "opaque", about, key)
        store.place(folder / "store", folder / "packed" / name, found[name], activate=True, move=True)
    return found


def _serve(folder: Path, pipe: Connection) -> None:
    """The process of the edge."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes((folder / "trust.bin").read_bytes())
    serve_edge(folder / "store", {key_id(key): key}, pipe)


def path_of(manifest: Manifest) -> str:
    """Where a file bundle's only layer is served."""
    return f"/v1/bundles/{manifest.name}/1.0.0/{manifest.layers['model.bin'].blob}"


# one device


def one(folder: Path, manifest: Manifest, repeats: int = 5) -> str:
    """One large model to one device."""
    from cellwright.edge.download import Download
    from cellwright.edge.wire import Link

    layer, path = manifest.layers["model.bin"], path_of(manifest)
    rows = []
    with process(_serve, folder) as (port, _):
        url = f"http://127.0.0.1:{port}"
        for number in range(repeats):
            begun, cpu_s = time.perf_counter(), time.process_time()
            Download(Link(url)).blob(path, None, layer, "model.bin", None)
            took_s = time.perf_counter() - begun
            cpu_s = time.process_time() - cpu_s
            rows.append(f"| {number + 1} | {took_s:.3f} | {layer.size * 8 / took_s / 1e9:.2f} | {cpu_s:.2f} | |")
        begun = time.perf_counter()
        moved = Download(Link(url)).blob(path, folder / "part", layer, "model.bin", folder / "whole")
        took_s = time.perf_counter() - begun
        rate = layer.size * 8 / took_s / 1e9
        rows.append(f"| to disk | {took_s:.3f} | {rate:.2f} | | {moved.stored_s:.3f} |")
    return "\n".join(
        [
            f"## One device, {layer.size:,} bytes",
            "",
            "From the request until the SHA-256 is compared. Received bytes discarded, except in the last row.",
            "",
            "| run | s | Gbit/s | CPU-s of the device | of it writing and fsync, s |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


# one file, beside nginx


def beside_nginx(file_bytes: int) -> str:
    """The same file from the edge, from nginx and from an edge behind nginx."""
    return "\n".join(
        [
            f"## One file of {file_bytes >> 20} MB to 1, 8 and 64 clients, beside nginx",
            "",
            "In turns in one run (`_distribution_server.py`); received bytes are thrown away by the kernel; RSS is the largest of all "
            "rounds.",
            "",
            table(measure(file_bytes=file_bytes)),
        ]
    )


# many devices


def many(folder: Path, manifest: Manifest, devices: int, seconds: float) -> str:
    """Many devices and a small model: the rate asked for, then more until it breaks."""
    rows = []
    with process(_serve, folder) as (port, server):
        asyncio.run(crowd(port, manifest, 20, 1.0, server))  # warm up
        for factor in _FACTORS:
            length_s = seconds if factor == 1.0 else min(seconds, 12.0)
            found = asyncio.run(crowd(port, manifest, int(devices / seconds * factor * length_s), length_s, server))
            rows.append(_row(found))
            if found.in_time < 0.5:
                break
    return "\n".join(
        [
            f"## Many devices, {SMALL_BYTES:,} bytes each",
            "",
            f"Poisson arrivals, a new connection each, verified; in time: within {DEADLINE_S:g} s of being due. The devices' hashing "
            "runs on the same cores.",
            "",
            "| devices | devices/s | Gbit/s asked | p50 ms | p99 ms | longest ms | in time | lost | edge CPU-s | edge peak MB |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


async def crowd(port: int, manifest: Manifest, devices: int, seconds: float, server: psutil.Process) -> Crowd:
    """So many devices, arriving at random over so many seconds."""
    found, rng = Crowd(devices, seconds), random.Random(7)
    request = f"GET {path_of(manifest)} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n".encode()
    layer = manifest.layers["model.bin"]
    cpu_s = sum(server.cpu_times()[:2])
    started, due_s, tasks = time.perf_counter(), 0.0, []
    for _ in range(devices):
        due_s += rng.expovariate(devices / seconds)
        if (wait_s := started + due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(_device(port, request, layer.hex, layer.size, started + due_s, found)))
        if len(tasks) % 100 == 0:
            found.server_peak_bytes = max(found.server_peak_bytes, server.memory_info().rss)
    await asyncio.gather(*tasks)
    found.server_cpu_s = sum(server.cpu_times()[:2]) - cpu_s
    return found


async def _device(port: int, request: bytes, sha256: str, size: int, due: float, found: Crowd) -> None:
    try:
        async with asyncio.timeout(_LONGEST_S):
            right = await _fetched(port, request, sha256, size)
    except (OSError, TimeoutError) as error:
        right, why = False, type(error).__name__
    else:
        why = "other bytes"
    if right:
        found.times_s.append(time.perf_counter() - due)
    else:
        found.lost[why] = found.lost.get(why, 0) + 1


async def _fetched(port: int, request: bytes, sha256: str, size: int) -> bool:
    """One device: connect, ask, hash, compare."""
    loop, room, hashed, seen = asyncio.get_running_loop(), memoryview(bytearray(1 << 18)), hashlib.sha256(), -1
    head = b""
    with socket.socket() as line:
        line.setblocking(False)
        await loop.sock_connect(line, ("127.0.0.1", port))
        await loop.sock_sendall(line, request)
        while seen < size and (count := await loop.sock_recv_into(line, room)):
            part = room[:count]
            if seen < 0:
                head += bytes(part)
                if (end := head.find(b"\r\n\r\n")) < 0:
                    continue
                if not head.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(head[:12].decode())
                part, seen = memoryview(head)[end + 4 :], 0
            hashed.update(part)
            seen += len(part)
    return hashed.hexdigest() == sha256


def _row(found: Crowd) -> str:
    asked = found.rate * SMALL_BYTES * 8 / 1e9
    lost = ", ".join(f"{count} {why}" for why, count in found.lost.items()) or "0"
    longest = max(found.times_s, default=float("nan")) * 1000
    return (
        f"| {found.devices:,} | {found.rate:.0f} | {asked:.2f} | {found.ms(50):.0f} | {found.ms(99):.0f} | {longest:.0f} | "
        f"{100 * found.in_time:.1f} % | {lost} | {found.server_cpu_s:.1f} | {found.server_peak_bytes / 1e6:.0f} |"
    )


if __name__ == "__main__":
    main()
