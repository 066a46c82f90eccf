"""A version that forecasts worse, as well or better replaces the champion of a real edge under load; and how often that goes wrong.

    python benchmarks/rollout.py                 # and benchmarks/results/<date>-rollout.md
    python benchmarks/rollout.py --quick         # two cases, ten repetitions, nothing written

Ridge regression, trained on 25 cells, is the champion; a challenger is the same model with a constant added to its forecasts, chosen
so that its MAE is exactly the stated multiple. The edge runs in a process of its own; two clients ask as fast as it answers, five
requests a telemetry step. Every answer is compared with what the version that it names gives alone. The simulation draws residuals of
25 cells, correlated between the versions, and asks the same guard.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import numpy as np
from _model import schema_of_sites
from _served import process, serve_edge

from cellwright.bundle import media, store
from cellwright.bundle.keys import signing_key, trusted
from cellwright.bundle.layout import About, pack
from cellwright.edge.evidence import Pair
from cellwright.lifecycle.rollout.controller import Hands, begin, drive
from cellwright.lifecycle.rollout.guards._contract import Opinion, paired
from cellwright.lifecycle.rollout.record import Files, Rolling
from cellwright.lifecycle.rollout.targets import StoreTarget
from cellwright.panel import Panel
from cellwright.params import Params, Rollout, check
from cellwright.workspace import Workspace

NAME, SITES, ROWS, FIRST = "bench", 25, 4_000, 1_000
PER_STEP = 5  # requests a telemetry step, of five sites each
CASES = ((2.0, 1.0), (1.2, 1.0), (1.1, 1.0), (1.0, 1.0), (1.0, 1.25))  # error of challenger and champion, in multiples of ridge's
FACTORS = (0.8, 0.95, 1.0, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0)
HORIZON = 1_008  # steps of ten minutes: a week
REPETITIONS = 100
CORRELATION = 0.8  # of the two versions' residuals
MARGIN = 0.05
SETTINGS = {
    "mode": "canary",
    "stages": (0.05, 0.25, 0.5),
    "min_requests": 30,
    "min_stage_s": 1.0,
    "poll_s": 0.2,
    "latency_ms": 100,
    "max_s": 40,
    "guards": {"error": {"margin": MARGIN}, "failures": {"margin": 0.05}, "latency": {"margin": 0.05}},
}


@dataclass
class Case:
    """One challenger under load."""

    challenger: float
    champion: float
    rolling: Rolling | None = None
    answers: int = 0
    failed: int = 0
    mixed: int = 0  # numbers that are not those of the version that the answer names
    by_challenger: int = 0
    steps: int = 0  # telemetry steps whose truth had arrived when it was decided
    seconds: float = 0.0
    verdict: list[str] = field(default_factory=list)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    started = time.monotonic()
    cases, repetitions = (CASES[::3], 10) if arguments.quick else (CASES, REPETITIONS)
    with tempfile.TemporaryDirectory() as folder:
        ready = _prepared(Path(folder))
        measured = [_case(ready, Path(folder) / str(i), *case) for i, case in enumerate(cases)]
    simulated = {factor: [_repetition(factor, seed) for seed in range(repetitions)] for factor in FACTORS}
    text = _report(measured, simulated, time.monotonic() - started)
    if not arguments.quick:
        (arguments.out / f"{datetime.now(UTC):%Y-%m-%d}-rollout.md").write_text(text)
    print(text)


# The real edge


@dataclass(frozen=True)
class Ready:
    """A trained ridge as ONNX, its telemetry and its residuals."""

    ws: Workspace
    model: bytes
    problem: bytes
    bodies: list[bytes]  # requests, PER_STEP a telemetry step
    residuals: np.ndarray  # forecast minus truth, Mbit/s

    def shift(self, factor: float) -> float:
        """The constant that makes the MAE `factor` times ridge's, by bisection."""
        mae = np.abs(self.residuals).mean()
        low, high = 0.0, 10 * factor * mae
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.abs(self.residuals + middle).mean() < factor * mae else (low, middle)
        return low if factor > 1 else 0.0


def _panel() -> Panel:
    """A daily wave a cell, and noise that lasts."""
    rng, row = np.random.default_rng(7), np.arange(ROWS)[:, None]
    noise = np.zeros((ROWS, SITES))
    for i in range(1, ROWS):
        noise[i] = 0.7 * noise[i - 1] + rng.normal(0, 6, SITES)
    traffic = 100 + 40 * np.sin(row / 144 * 2 * np.pi + np.arange(SITES)) + noise
    return Panel.from_arrays(schema_of_sites(ROWS), {"traffic": traffic.clip(0).astype(np.float32)})


def _prepared(folder: Path) -> Ready:
    from cellwright.bundle.contents import document
    from cellwright.bundle.export import export_onnx
    from cellwright.bundle.problem import served
    from cellwright.data.windows import Windows
    from cellwright.edge.sample import sample_request
    from cellwright.forecaster import Forecaster
    from cellwright.steps.train import train

    ws, panel = Workspace(folder / "project"), _panel()
    params: Params = check({"dataset": "bench", "problem": {"inputs": "site"}, "train": {"models": ["ridge"]}}, "benchmark")
    panel.save(ws.panel("bench"))
    train(params, ws, "ridge")
    forecaster = Forecaster.load(ws.candidate("ridge"))
    model = export_onnx(forecaster, folder / "ridge.onnx").read_bytes()
    windows = Windows(panel, forecaster.problem)
    problem = served(windows.problem, panel.schema, windows.neighbours, {"kind": "standard"})
    groups = [tuple(f"c{i}" for i in range(first, SITES, PER_STEP)) for first in range(PER_STEP)]
    bodies = [
        json.dumps(sample_request(problem, panel, sites=group, origin=row)).encode()
        for row in range(FIRST, ROWS - 10)
        for group in groups
    ]
    ready = Ready(ws, model, document(problem.model_dump(mode="json")), bodies, np.zeros(1))
    return Ready(ws, model, ready.problem, bodies, _residuals(ready, folder, panel))


def _residuals(ready: Ready, folder: Path, panel: Panel) -> np.ndarray:
    """Of the unshifted model over 200 steps, all horizons."""
    from cellwright.edge.predictor import Predictor

    manifest = _publish(ready, folder / "alone", "1.0.0", 0.0)
    predictor = Predictor.load(folder / "alone" / NAME / "1.0.0", trusted(ready.ws.keys))
    truth, found = panel.values("traffic"), []
    for number in range(200 * PER_STEP):
        told = predictor.forecast(json.loads(ready.bodies[number]))
        row = FIRST + number // PER_STEP
        for site, each in told["forecasts"].items():
            values = np.asarray(each["traffic"])
            found.append(values - truth[row : row + len(values), int(site[1:])])
    assert manifest
    return np.concatenate(found)


def _publish(ready: Ready, folder: Path, version: str, shift: float) -> str:
    """A version whose forecasts are higher by `shift`; 1.0.0 serves. Returns its digest."""
    contents: dict[str, bytes | Path] = dict.fromkeys((media.LICENCE, media.LINEAGE, media.KPIS), b"{}")
    contents |= {media.MODEL: _shifted(ready.model, shift), media.PROBLEM: ready.problem, media.CARD: version.encode()}
    about = About(NAME, version, "Ridge", "ridge", "benchmark", 1, None, None)
    packed = folder.parent / f"packed-{folder.name}-{version}"
    manifest = pack(packed, contents, about, signing_key(ready.ws.keys))
    store.place(folder, packed, manifest, activate=version == "1.0.0")
    return manifest.digest


def _shifted(model: bytes, shift: float) -> bytes:
    import onnx

    graph = onnx.load_from_string(model)
    last = next(node for node in graph.graph.node if "forecast" in node.output)
    last.output[:] = ["unshifted" if name == "forecast" else name for name in last.output]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(shift), "shift"))
    graph.graph.node.append(onnx.helper.make_node("Add", ["unshifted", "shift"], ["forecast"]))
    return bytes(graph.SerializeToString(deterministic=True))


def _case(ready: Ready, folder: Path, challenger: float, champion: float) -> Case:
    """One rollout under load, from its beginning to its end."""
    case = Case(challenger, champion)
    published = folder / "published"
    digests = {v: _publish(ready, published, v, ready.shift(f)) for v, f in (("1.0.0", champion), ("1.1.0", challenger))}
    answers: list[tuple[int, int, bytes]] = []
    with process(partial(_serve, ready.ws.keys), folder) as (port, _), _load(f"http://127.0.0.1:{port}", ready.bodies, answers):
        files, started = Files(folder / "rollouts", NAME), time.monotonic()
        acting = Hands(StoreTarget(published))
        begin(files, "1.1.0", Rollout(**SETTINGS, edges=(f"http://127.0.0.1:{port}",)), acting)  # type: ignore[arg-type]
        case.rolling = drive(files, acting)
        case.seconds = time.monotonic() - started
        time.sleep(1.5)  # the load goes on after the swap
    seen = files.evidence()[-1]
    case.steps, case.by_challenger = len({p.at_ms for p in seen.errors}), seen.counts["1.1.0"].requests
    _check(case, ready, published, digests, answers)
    return case


def _check(case: Case, ready: Ready, published: Path, digests: dict[str, str], answers: list[tuple[int, int, bytes]]) -> None:
    """Every answer against what the version that it names gives alone."""
    from cellwright.edge.predictor import Predictor

    alone = {v: Predictor.load(published / NAME / v, trusted(ready.ws.keys)) for v in digests}
    expected: dict[tuple[str, int], np.ndarray] = {}
    for number, status, content in answers:
        case.answers += 1
        if status != httpx.codes.OK:
            case.failed += 1
            continue
        told = json.loads(content)
        key = (told["version"], number)
        if key not in expected:
            expected[key] = _numbers(alone[told["version"]].forecast(json.loads(ready.bodies[number])))
        right = told["digest"] == digests[told["version"]] and np.allclose(_numbers(told), expected[key], rtol=1e-4, atol=1e-3)
        case.mixed += not right


def _numbers(told: dict) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([each["traffic"] for each in told["forecasts"].values()])


@contextmanager
def _load(url: str, bodies: list[bytes], answers: list[tuple[int, int, bytes]], clients: int = 2) -> Iterator[None]:
    """Clients that ask one request after the other, the telemetry going on; a broken connection counts as status 0."""
    stop, turn, lock = threading.Event(), iter(range(len(bodies))), threading.Lock()

    def client() -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
            while not stop.is_set():
                with lock:
                    number = next(turn, None)
                if number is None:
                    return
                try:
                    answer = http.post("/v1/forecast", content=bodies[number])
                    answers.append((number, answer.status_code, answer.content))
                except httpx.HTTPError:
                    answers.append((number, 0, b""))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _serve(keys: Path, folder: Path, pipe: Connection) -> None:
    from cellwright.edge.server import Limits

    serve_edge(folder / "published", trusted(keys), pipe, limits=Limits(poll_s=0.2))


# The simulation


@dataclass(frozen=True)
class Repetition:
    """What the error guard says of one seeded week: its first verdict, when, and the last one."""

    first: str
    steps: int
    last: str


def _repetition(factor: float, seed: int) -> Repetition:
    rng = np.random.default_rng([seed, round(1000 * factor)])
    scale = rng.lognormal(0, 0.3, (HORIZON, 1))  # some hours are harder for both
    mine = rng.normal(0, 1, (HORIZON, SITES))
    other = CORRELATION * mine + math.sqrt(1 - CORRELATION**2) * rng.normal(0, 1, (HORIZON, SITES))
    old, new = (np.abs(scale * each).mean(axis=1) for each in (mine, other))
    pairs = [
        Pair(at_ms=600_000 * i, weight=SITES, champion=float(o), challenger=float(factor * n))
        for i, (o, n) in enumerate(zip(old, new, strict=True))
    ]
    steps = _first(pairs)
    return Repetition(_says(pairs[:steps]).verdict, steps, _says(pairs).verdict)


def _first(pairs: list[Pair]) -> int:
    """Number of pairs with which the guard first speaks; it never takes that back to "undecided", so bisection finds it."""
    low, high = 0, 8
    while high < len(pairs) and _says(pairs[:high]).verdict == "undecided":
        low, high = high, 2 * high
    high = min(high, len(pairs))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _says(pairs[:middle]).verdict == "undecided" else (low, middle)
    return high


def _says(pairs: list[Pair]) -> Opinion:
    return paired(pairs, MARGIN, Rollout().alpha / len(Rollout().guards), "error")


# The page


def _report(cases: list[Case], simulated: dict[float, list[Repetition]], seconds: float) -> str:
    one, five, _ = os.getloadavg()
    lines = [
        f"# Rollouts, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}; {seconds:.0f} s in all; load average "
        f"{one:.1f} (1 min), {five:.1f} (5 min), the edge and the load included.",
        "`python benchmarks/rollout.py`",
        "",
        "## A real edge under load",
        "",
        f"Canary stages {', '.join(f'{s:.0%}' for s in SETTINGS['stages'])}, error margin {MARGIN:.0%}, "  # type: ignore[attr-defined]
        f"undecided after {SETTINGS['max_s']} s: taken back. "
        f"{PER_STEP} requests a telemetry step. *Mixed*: answers whose numbers are not those of the version and digest that they name. "
        "An instant in which one version errs more than 1.67 times the other counts as 1.67 times.",
        "",
        "| error of the challenger | outcome | requests | failed | mixed | delay: telemetry steps | answered by it | seconds | why |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for c in cases:
        assert c.rolling is not None
        state = c.rolling.state
        why = state.events[-1].what.partition(": ")[2]
        lines.append(
            f"| {c.challenger / c.champion:.2f}× | {state.outcome.replace('_', ' ')} | {c.answers:,} | {c.failed} | {c.mixed} "
            f"| {c.steps} | {c.by_challenger} | {c.seconds:.1f} | {why} |"
        )
    lines += [
        "",
        "## False alarms and delays",
        "",
        f"{len(next(iter(simulated.values())))} seeded weeks ({HORIZON} steps) a row, {SITES} cells, correlation {CORRELATION}; the "
        f"error guard alone, α {Rollout().alpha / len(Rollout().guards):g} (a quarter of {Rollout().alpha:g}), looking at every step.",
        "",
        "| error of the challenger | proven worse | proven as good | neither in a week | steps to the verdict: median | 95 % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for factor, repetitions in simulated.items():
        said = [r.last if r.last == "worse" else r.first for r in repetitions]
        steps = [r.steps for r in repetitions if r.first != "undecided"]
        median, most = (f"{np.median(steps):.0f}", f"{np.percentile(steps, 95):.0f}") if steps else ("–", "–")
        counts = [said.count(v) for v in ("worse", "as_good", "undecided")]
        lines.append(f"| {factor:.2f}× | {counts[0]} | {counts[1]} | {counts[2]} | {median} | {most} |")
    wrong = sum(r.last == "worse" or r.first == "worse" for f in simulated if f <= 1.0 for r in simulated[f])
    of = sum(len(simulated[f]) for f in simulated if f <= 1.0)
    missed = sum(r.first == "as_good" for f in simulated if f > 1 + MARGIN for r in simulated[f])
    lines += [
        "",
        f"False alarms (taken back though equal or better): {wrong} of {of}. Promoted though worse than the margin: {missed} of "
        f"{sum(len(simulated[f]) for f in simulated if f > 1 + MARGIN)}. At exactly the margin (1.05×) neither can be proven.",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
