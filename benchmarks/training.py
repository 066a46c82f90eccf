"""Training throughput of one and the same LSTM here and in neuralforecast, in windows per second.

    python benchmarks/training.py                # three rounds of both, and benchmarks/results/<date>-training.md
    python benchmarks/training.py --rounds 1 --steps 50

One-layer LSTM, hidden 64, history 12, horizon 3, 1,024 windows a step, mean absolute error, on 400 generated sites × 8,640
rows. Both scale each site once, see the telemetry alone, and put one linear layer behind the LSTM. Each side runs in a process
of its own, one after the other, with the same number of threads, four sides a round:

    cellwright       the whole of `fit`: drawing, scaling, Lightning, clipping, validation of 1,024 windows an epoch
    bare             the same batches in a plain PyTorch loop: what is left is this project's and Lightning's overhead
    neuralforecast   3.3.0 in a virtual environment of its own (made below .cellwright), twice: 32 series a batch, its default,
                     from whose windows the 1,024 are drawn; and 2 series, as fast as it gets (but then a step sees two sites
                     only)

Start-up, data preparation and the first steps are not timed. Wall time suffers from whatever else the machine does; windows
per CPU-second hardly do, so both are given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

SITES, ROWS, DAY = 400, 8_640, 144  # as many as the generated city has
HISTORY, HORIZON, HIDDEN, BATCH = 12, 3, 64, 1_024
WARM_UP = 10  # steps
VERSION = "3.3.0"
HERE = Path(__file__).resolve().parent


def telemetry() -> np.ndarray:
    """(rows, sites): a daily wave, a level a site, and noise that lasts."""
    rng = np.random.default_rng(0)
    wave = 1.5 + np.sin(2 * np.pi * np.arange(ROWS)[:, None] / DAY - rng.uniform(0, 1, SITES))
    noise = np.zeros((ROWS, SITES))
    for row in range(1, ROWS):
        noise[row] = 0.9 * noise[row - 1] + rng.normal(0, 0.1, SITES)
    return (rng.uniform(50, 400, SITES) * (wave + noise).clip(0.05)).astype(np.float32)


class Clock:
    """Wall and CPU time from the end of the warm-up to the last step."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def tick(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def report(self) -> dict[str, float]:
        kept = self.marks[WARM_UP:]
        wall, cpu = (kept[-1][i] - kept[0][i] for i in (0, 1))
        steps = len(kept) - 1
        return {"windows_per_s": steps * BATCH / wall, "windows_per_cpu_s": steps * BATCH / cpu, "ms_a_step": wall / steps * 1e3}


def candidate_and_panel(steps: int):
    """The benchmark's candidate, its panel and spans."""
    from cellwright.data.split import split
    from cellwright.panel import Feature, Panel, PanelSchema, Segment
    from cellwright.params import check
    from cellwright.training.candidates import resolve

    schema = PanelSchema(
        dataset="benchmark",
        sites=tuple(str(i) for i in range(SITES)),
        features=(Feature(name="traffic", unit="Mbit/s"),),
        targets=("traffic",),
        cadence_s=86_400 / DAY,
        clock="utc",
        start_ms=0,
        rows=ROWS,
        segments=(Segment(name="all", start=0, stop=ROWS),),
        licence="generated",
        attribution="",
    )
    options = {"hidden": HIDDEN, "layers": 1, "residual": "none"}
    params = check(
        {
            "problem": {"history": HISTORY, "horizon": HORIZON, "inputs": "site", "calendar": False},
            "train": {
                "models": ["lstm"],
                "settings": {"lstm": {"options": options}},
                "batch": BATCH,
                "windows_per_epoch": 80 * BATCH,
                "validation_windows": BATCH,
                "max_epochs": max(1, steps // 80),
                "budget_s": 3600,
                "patience": 1000,
                "device": "cpu",
            },
        },
        "benchmark",
    )
    return resolve(params, schema, "lstm"), Panel.from_arrays(schema, {"traffic": telemetry()}), split(params.split, 0, ROWS)


def cellwright(steps: int) -> dict[str, float]:
    """The training loop as users run it."""
    from cellwright.training.fit import fit
    from cellwright.training.loop import Loop

    clock, end_of_step = Clock(), Loop.on_train_batch_end

    def timed(self: Loop, *arguments: object) -> None:
        end_of_step(self, *arguments)
        clock.tick()

    Loop.on_train_batch_end = timed
    with tempfile.TemporaryDirectory() as folder:
        fit(*candidate_and_panel(steps), folder=Path(folder))
    return clock.report()


def bare(steps: int) -> dict[str, float]:
    """The same batches, network, loss and clipping in a plain loop."""
    import torch

    from cellwright.data.windows import Windows
    from cellwright.training.batches import Drawn, Pool, scaled
    from cellwright.training.fit import _start
    from cellwright.training.losses import loss_sum

    candidate, panel, spans = candidate_and_panel(steps)
    forecaster, windows = _start(candidate, panel, spans, None), Windows(panel, candidate.problem)
    pool, parameters, epoch, clock = Pool(windows, windows.origins(*spans.train)), list(forecaster.parameters()), 0, Clock()
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    drawn = Drawn(pool, batch=BATCH, windows_per_epoch=80 * BATCH, seed=7, epoch=lambda: epoch)
    for epoch in range(max(1, steps // 80)):  # noqa: B007  (read by the lambda)
        for loaded in drawn:
            ready = scaled(forecaster, loaded)
            total, count = loss_sum("mae", forecaster.network(ready.x, ready.known)[..., 0], ready.y, ready.mask)
            optimizer.zero_grad()
            (total / count).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            clock.tick()
    return clock.report()


def neuralforecast(steps: int, series: int) -> dict[str, float]:
    """neuralforecast's LSTM with the same layers, as fast as its options make it."""
    import logging

    import pandas as pd
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MAE
    from neuralforecast.models import LSTM
    from pytorch_lightning import Callback

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    clock = Clock()

    class Timed(Callback):
        def on_train_batch_end(self, *arguments: object) -> None:
            clock.tick()

    values = telemetry()[: int(ROWS * 0.8)]
    times = np.tile(pd.date_range("1970-01-01", periods=len(values), freq="10min"), SITES)
    frame = pd.DataFrame({"unique_id": np.repeat(np.arange(SITES), len(values)), "ds": times, "y": values.T.ravel()})
    model = LSTM(
        h=HORIZON,
        input_size=HISTORY,
        encoder_n_layers=1,
        encoder_hidden_size=HIDDEN,
        decoder_layers=1,
        loss=MAE(),
        max_steps=steps,
        batch_size=series,
        windows_batch_size=BATCH,
        scaler_type="identity",  # the series are scaled once, below
        gradient_clip_val=1.0,
        callbacks=[Timed()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    NeuralForecast(models=[model], freq="10min", local_scaler_type="standard").fit(frame)
    return clock.report()


SIDES = {
    "cellwright": cellwright,
    "bare": bare,
    "neuralforecast": lambda steps: neuralforecast(steps, 32),
    "neuralforecast, 2 series a batch": lambda steps: neuralforecast(steps, 2),
}


def environment() -> Path:
    """The virtual environment of neuralforecast; made the first time.

    torch is taken from where `PIP_FIND_LINKS` says, if it is set, as in the project's own set-up.
    """
    folder = HERE.parent / ".cellwright" / "benchmarks" / f"neuralforecast-{VERSION}"
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        import torch

        wanted = [f"neuralforecast=={VERSION}", f"torch=={torch.__version__.split('+')[0]}"]
        if shutil.which("uv"):
            links = {"UV_FIND_LINKS": os.environ["PIP_FIND_LINKS"]} if "PIP_FIND_LINKS" in os.environ else {}
            subprocess.run(["uv", "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
            install = ["uv", "pip", "install", "-q", "--python", python]
        else:
            links = {}
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            install = [python, "-m", "pip", "install", "-q"]
        subprocess.run([*install, *wanted], check=True, env={**os.environ, **links})
        (folder / "ready").touch()
    return python


def run_side(side: str, steps: int, threads: int) -> dict[str, float]:
    """One side in a process of its own."""
    python = environment() if side.startswith("neuralforecast") else Path(sys.executable)
    bound = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [python, __file__, "--side", side, "--steps", str(steps)]
    done = subprocess.run(
        command, env={**os.environ, **bound, "PYTHONPATH": str(HERE.parent)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{side:34} {result['windows_per_s']:10,.0f} windows/s {result['windows_per_cpu_s']:10,.0f} windows/CPU-s", flush=True)
    return result


def median(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def page(results: dict[str, list[dict[str, float]]], steps: int, threads: int) -> str:
    """The result as Markdown."""
    import lightning
    import torch

    today, ours, base = datetime.now(UTC).date(), results["cellwright"], results["bare"]
    lines = [
        f"# Training throughput, {today}",
        "",
        f"`python benchmarks/training.py` on {platform.machine()}, {threads} thread(s) a process, {len(ours)} rounds of {steps} "
        f"steps; Python {platform.python_version()}, torch {torch.__version__}, lightning {lightning.__version__},",
        f"neuralforecast {VERSION} (its own environment, the same torch). Medians of the rounds; the sides took turns. Load",
        f"average at the end {os.getloadavg()[0]:.1f}: where the machine is shared, windows per CPU-second are the fairer figure.",
        "",
        "| side | windows / s | windows / CPU-s | cellwright is faster by, wall | by CPU time |",
        "| --- | --- | --- | --- | --- |",
    ]
    for side, runs in results.items():
        wall, cpu = median(runs, "windows_per_s"), median(runs, "windows_per_cpu_s")
        by_wall = statistics.median(a["windows_per_s"] / b["windows_per_s"] for a, b in zip(ours, runs, strict=True))
        by_cpu = statistics.median(a["windows_per_cpu_s"] / b["windows_per_cpu_s"] for a, b in zip(ours, runs, strict=True))
        lines.append(f"| {side} | {wall:,.0f} | {cpu:,.0f} | {by_wall:.2f}× | {by_cpu:.2f}× |")
    overhead = BATCH * 1e3 * (1 / median(ours, "windows_per_cpu_s") - 1 / median(base, "windows_per_cpu_s"))
    lines += [
        "",
        "Overhead of the loop (Lightning, budget, records, checkpoint, validation) over a plain PyTorch loop:",
        f"{overhead:.2f} CPU-ms a step of {BATCH:,} windows.",
        "",
        *(__doc__ or "").split("\n\n")[2].splitlines(),
        "",
        "```",
        *(__doc__ or "").split("\n\n")[3].splitlines(),
        "```",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure all sides in turn, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(SIDES[given.side](given.steps)))
        return
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(given.rounds):
        for side in SIDES:
            results[side].append(run_side(side, given.steps, given.threads))
    target = HERE / "results" / f"{datetime.now(UTC).date()}-training.md"
    target.write_text(page(results, given.steps, given.threads))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
