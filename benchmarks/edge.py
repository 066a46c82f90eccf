"""How many forecasts an edge answers, how fast a device fetches, and what each model of the zoo costs to export.

    python benchmarks/edge.py                 # everything, and benchmarks/results/<date>-edge.md
    python benchmarks/edge.py --seconds 2     # the same, shorter

The server runs in a process of its own, the clients in this one, over loopback. Clients keep their connection and send the next
request when the answer is there (a closed loop); a request is one site's raw history as JSON. The downloaded bundle holds a file
of 138 MB (the size of a large PatchTST); what is timed is all that `fetch` does: download, hashes, signature, activation.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
from _model import NAME, export, panel_of_sites, publish, request_of
from _served import edge, process

from cellwright.bundle.keys import trusted
from cellwright.edge.device import Device
from cellwright.panel import Panel

LARGE_BYTES = 138_000_000


@dataclass(frozen=True)
class Load:
    """One closed loop of clients."""

    clients: int
    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # of the server, an answer


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        panel = panel_of_sites()
        exports = [export(panel, key, Path(folder)) for key in ("ridge", "dlinear", "gru", "patchtst")]
        publish(Path(folder), "1.0.0")
        publish(Path(folder), "1.1.0", os.urandom(LARGE_BYTES))
        loads, fetches = _served(panel, Path(folder), arguments.seconds)
    text = _report(exports, loads, fetches)
    path = arguments.out / f"{datetime.now(UTC):%Y-%m-%d}-edge.md"
    path.write_text(text)
    print(text)


def _served(panel: Panel, folder: Path, seconds: float) -> tuple[list[Load], list[tuple[int, float, float]]]:
    with process(edge, folder) as (port, server):
        request = request_of(panel)
        asyncio.run(_load(port, request, 8, 0.5))  # warm up
        loads = [_measured(server, port, request, clients, seconds) for clients in (1, 8, 32)]
        return loads, [_fetch(folder, port, number) for number in range(3)]


def _measured(server: psutil.Process, port: int, request: bytes, clients: int, seconds: float) -> Load:
    before = sum(server.cpu_times()[:2])
    times, took = asyncio.run(_load(port, request, clients, seconds))
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return Load(clients, len(times), took, p50, p99, 1000 * (sum(server.cpu_times()[:2]) - before) / len(times))


async def _load(port: int, body: bytes, clients: int, seconds: float) -> tuple[list[float], float]:
    """Seconds each answer took, and all of it."""
    head = f"POST /v1/forecast HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    times: list[float] = []
    started = time.perf_counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - started < seconds:
            sent = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer[:16]:
                raise RuntimeError(answer.decode())
            length = next(int(line[15:]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(length)
            times.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return times, time.perf_counter() - started


def _fetch(folder: Path, port: int, number: int) -> tuple[int, float, float]:
    """(bytes, seconds, bits a second)."""
    device = Device(folder / f"device-{number}", trusted(folder / "keys"))
    fetched = device.fetch(f"http://127.0.0.1:{port}", NAME, "1.1.0")
    return fetched.transfer.received_bytes, fetched.seconds, fetched.rate_bps


def _report(exports: list[tuple[str, float, int, float]], loads: list[Load], fetches: list[tuple[int, float, float]]) -> str:
    import aiohttp
    import onnxruntime
    import torch

    one, five, _ = os.getloadavg()
    lines = [
        f"# Edge, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, aiohttp {aiohttp.__version__}, "
        f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}. Load average while measuring {one:.1f} (1 min), "
        f"{five:.1f} (5 min){': other work shared the machine, so these are lower bounds' if five > 2 else ''}.",
        "`python benchmarks/edge.py`",
        "",
        "Forecasts over loopback, one site a request, GRU (6 steps in, 3 out), server and clients sharing the cores:",
        "",
        "| clients | forecasts / s | p50 ms | p99 ms | CPU ms of the server a forecast |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {x.clients} | {x.answers / x.seconds:,.0f} | {x.p50_ms:.2f} | {x.p99_ms:.2f} | {x.cpu_ms:.2f} |" for x in loads),
        "",
        "`fetch` of a bundle with a 138 MB file over loopback, from the request to the active bundle (downloaded, hashed as it "
        "arrives, hashed again on disk, signature checked, activated):",
        "",
        "| MB | s | Gbit/s |",
        "| --- | --- | --- |",
        *(f"| {size / 1e6:.1f} | {seconds:.2f} | {rate / 1e9:.2f} |" for size, seconds, rate in fetches),
        "",
        "Export to ONNX (the first one pays for loading the exporter):",
        "",
        "| model | s | kB | largest relative difference to torch |",
        "| --- | --- | --- | --- |",
        *(f"| {key} | {seconds:.1f} | {size / 1e3:.1f} | {apart:.1e} |" for key, seconds, size, apart in exports),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
