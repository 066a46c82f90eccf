"""How many forecasts a second an edge answers, beside a bare server of 30 lines and beside MLflow's own, in one run.

    python benchmarks/serving.py                 # and benchmarks/results/<date>-serving.md
    python benchmarks/serving.py --seconds 3 --no-mlflow

All serve the same GRU over loopback; the load comes from one process of its own. The edge's request is raw telemetry with names,
times and units: it checks, scales, adds the calendar, routes, meters and answers by name. The bare server takes the finished arrays
and returns the numbers. MLflow serves the same ONNX file with two workers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
from _load import Outcome, closed, constant, message
from _model import export, panel_of_sites, publish, request_of
from _served import edge, process

CLIENTS = (1, 8, 32)
RATE = 1000.0  # forecasts a second that the edge shall answer at p99 under 10 ms
ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One load of one server."""

    server: str
    load: str
    outcome: Outcome
    cpu_ms: float  # of the server, an answer


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--no-mlflow", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = _rows(Path(folder), arguments.seconds, mlflow=not arguments.no_mlflow)
    text = _report(rows)
    if not arguments.no_mlflow:
        (arguments.out / f"{datetime.now(UTC):%Y-%m-%d}-serving.md").write_text(text)
    print(text)


def _rows(folder: Path, seconds: float, *, mlflow: bool) -> list[Row]:
    panel = panel_of_sites()
    export(panel, "gru", folder)
    publish(folder, "1.0.0")
    full, bare = message("/v1/forecast", request_of(panel)), message("/forecast", _arrays(folder))
    rows = []
    with process(edge, folder) as (edge_port, edged), process(_bare, folder) as (bare_port, bared):
        for _ in range(ROUNDS):  # in turns, so that other work on the machine meets both
            for clients in CLIENTS:
                for name, port, pid, what in (("edge", edge_port, edged.pid, full), ("bare", bare_port, bared.pid, bare)):
                    rows.append(_measured(name, f"{clients} clients", pid, closed(port, what, clients, seconds), port, what))
        for name, port, pid, what in (("edge", edge_port, edged.pid, full), ("bare", bare_port, bared.pid, bare)):
            rows.append(_measured(name, f"{RATE:,.0f} / s", pid, constant(port, what, RATE, 2 * seconds), port, what))
    if mlflow:
        with _mlflow(folder) as (port, pid):
            what = message("/invocations", json.dumps({"inputs": json.loads(_arrays(folder))}).encode())
            rows += [_measured("MLflow", f"{n} clients", pid, closed(port, what, n, seconds), port, what) for n in CLIENTS]
    return rows


def _measured(name: str, load: str, pid: int, run, port: int, what: bytes) -> Row:  # type: ignore[no-untyped-def]
    asyncio.run(closed(port, what, 4, 0.3))  # warm
    before = _cpu_s(pid)
    outcome: Outcome = asyncio.run(run)
    if set(outcome.statuses) - {200, 429}:
        raise RuntimeError(f"{name} answered {outcome.statuses}")
    return Row(name, load, outcome, 1000 * (_cpu_s(pid) - before) / max(1, len(outcome.times_s)))


def _cpu_s(pid: int) -> float:
    all_of_it = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in all_of_it)


def _bare(folder: Path, pipe: Connection) -> None:
    """The 30 lines: arrays in, arrays out, in the event loop's own thread."""
    import numpy as np
    import onnxruntime as ort
    from aiohttp import web

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(folder / "gru.onnx", options, providers=["CPUExecutionProvider"])
    types = {i.name: np.int64 if "int64" in i.type else np.float32 for i in session.get_inputs()}

    async def forecast(request: web.Request) -> web.Response:
        asked = await request.json()
        found = session.run(None, {name: np.array(asked[name], dtype=kind) for name, kind in types.items()})
        return web.json_response({"forecast": found[0].tolist()})

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/forecast", forecast)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pipe.send(runner.addresses[0][1])
        await asyncio.to_thread(pipe.recv)
        await runner.cleanup()

    asyncio.run(run())


def _arrays(folder: Path) -> bytes:
    """The model's inputs for one site, as JSON."""
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(folder / "gru.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    shapes = {i.name: [n if isinstance(n, int) else 1 for n in i.shape] for i in session.get_inputs()}
    whole = {i.name for i in session.get_inputs() if "int64" in i.type}
    return json.dumps({n: (np.zeros(s, int) if n in whole else rng.random(s)).tolist() for n, s in shapes.items()}).encode()


@contextmanager
def _mlflow(folder: Path) -> Iterator[tuple[int, int]]:
    """MLflow's scoring server with two workers on the same ONNX file."""
    import mlflow.onnx
    import onnx

    mlflow.onnx.save_model(onnx.load(folder / "gru.onnx"), folder / "mlflow", pip_requirements=["onnxruntime"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "mlflow"), "-p", str(port)]
    command += ["--env-manager", "local", "-w", "2"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = (folder / "mlflow.log").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", server, folder / "mlflow.log")
        yield port, server.pid
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path, longest_s: float = 120) -> None:
    until = time.monotonic() + longest_s
    while server.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(url, timeout=1).read()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"MLflow's server did not start:\n{log.read_text()[-2000:]}")


def _report(rows: list[Row]) -> str:
    import aiohttp
    import onnxruntime

    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        if (held := best.get((row.server, row.load))) is None or row.outcome.rate > held.outcome.rate:
            best[row.server, row.load] = row
    one, five, _ = os.getloadavg()
    lines = [
        f"# Serving, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, aiohttp {aiohttp.__version__}, "
        f"onnxruntime {onnxruntime.__version__}. Load average after measuring {one:.1f} (1 min), {five:.1f} (5 min), the servers "
        "and the load included.",
        "`python benchmarks/serving.py`",
        "",
        f"The best of {ROUNDS} rounds in which edge and bare server took turns; a GRU, one site a request.",
        "",
        "| server | load | forecasts / s | p50 ms | p99 ms | CPU ms a forecast | of the bare server |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (server, load), row in best.items():
        o, bare = row.outcome, best.get(("bare", load))
        share = f"{o.rate / bare.outcome.rate:.2f}" if bare and server != "bare" else ""
        lines.append(f"| {server} | {load} | {o.rate:,.0f} | {o.ms(50):.2f} | {o.ms(99):.2f} | {row.cpu_ms:.2f} | {share} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
