"""What orchestration costs: the main job as a Prefect flow against the same steps called one after the other.

    python benchmarks/overhead.py [--dataset city] [--rounds 2] [--models ridge,mlp,lstm,gru] [--budget-s 20]

Each round runs both, in turn, in processes of their own, with training bounded by the same budget. The server's start is measured
apart. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]


def plain(overrides: list[str]) -> float:
    """Seconds of the steps alone: data through DVC, candidates on the same workers, no Prefect."""
    from cellwright import runs, versioning
    from cellwright.params import load
    from cellwright.processes import run_step
    from cellwright.steps.publish import publish
    from cellwright.steps.rank import rank
    from cellwright.steps.register import register
    from cellwright.steps.report import report
    from cellwright.training.runner import train_all
    from cellwright.workspace import Workspace

    begun = time.perf_counter()
    params = load(ROOT / "params.yaml", overrides)
    versioning.reproduce(Workspace(ROOT), params.dataset)
    ws = runs.open_run(params, ROOT, versioning.data_version(Workspace(ROOT), params.dataset), again=f"plain{os.getpid()}")
    train_all(params, ws)
    run_step(ws, "score", on_line=lambda line: None)
    rank(params, ws)
    register(params, ws, promote=False)
    publish(params, ws)
    report(params, ws)
    return time.perf_counter() - begun


def flow(overrides: list[str]) -> tuple[float, float]:
    """(seconds of the server's start, seconds of the flow)."""
    begun = time.perf_counter()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.read_flows(limit=1)
    from cellwright.params import load
    from flows._catalogue import DataSet
    from flows.benchmark import benchmark

    started = time.perf_counter()
    benchmark(dataset=DataSet(load(ROOT / "params.yaml", overrides).dataset), overrides=overrides, fresh=True, promote=False)
    return started - begun, time.perf_counter() - started


def main() -> None:
    """Run both in turn and write the result."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--dataset", default="city")
    asked.add_argument("--rounds", type=int, default=2)
    asked.add_argument("--models", default="ridge,mlp,lstm,gru")
    asked.add_argument("--budget-s", type=float, default=20)
    asked.add_argument("--child", choices=["plain", "flow"])
    given = asked.parse_args()
    overrides = [f"dataset={given.dataset}", f"train.models=[{given.models}]", f"train.budget_s={given.budget_s}"]
    if given.child:
        print("result:", json.dumps(plain(overrides) if given.child == "plain" else flow(overrides)))
        return
    rounds = [(_child("plain"), _child("flow")) for _ in range(given.rounds)]
    _write(given, rounds)


def _child(kind: str) -> object:
    """One measurement in a process of its own, with Prefect's state in an empty folder."""
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "PREFECT_HOME": home, "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180"}
        environment["PYTHONPATH"] = str(ROOT)
        done = subprocess.run(
            [sys.executable, __file__, *arguments, "--child", kind],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("result:"))
    print(kind, line.removeprefix("result:").strip(), flush=True)
    return json.loads(line.removeprefix("result:"))


def _write(given: argparse.Namespace, rounds: list[tuple[object, object]]) -> None:
    alone = [float(p) for p, _ in rounds]  # type: ignore[arg-type]
    servers, flows = [f[0] for _, f in rounds], [f[1] for _, f in rounds]  # type: ignore[index]
    ratio = statistics.median(flows) / statistics.median(alone)
    lines = [
        f"# What orchestration costs, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/overhead.py {' '.join(sys.argv[1:])}` on {platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end; data set {given.dataset}, models {given.models}, {given.budget_s:g} s of training each.",
        "",
        "| round | steps alone, s | as a flow, s | server's start, s |",
        "|-|-|-|-|",
        *(f"| {i + 1} | {a:.1f} | {f:.1f} | {s:.1f} |" for i, (a, f, s) in enumerate(zip(alone, flows, servers, strict=True))),
        "",
        f"Medians: the flow takes {ratio:.3f} × the steps alone ({100 * (ratio - 1):+.1f} %), and the server "
        f"{statistics.median(servers):.1f} s to start in an empty home.",
    ]
    path = ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-overhead.md"
    path.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
