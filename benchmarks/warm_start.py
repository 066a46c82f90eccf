"""What starting from the last champion's weights saves when new data arrive, in time, CPU-seconds and energy, at equal error.

    python benchmarks/warm_start.py                              # mlp, lstm, gru, tcn, two seeds, about eight minutes on one core
    python benchmarks/warm_start.py --models mlp --seeds 7 --budget-s 5

On `city`, from the project's own data stages. A champion is trained on the first 45 days (their first 80 % are its training span). The
new data version has 15 days more: it is trained on cold, from fresh weights, and warm, from the champion's weights and scaler. Both
validate, between epochs, on the same windows of the new version's validation span, which the champion has never seen: days 48 to 54.
The test span is not read.

    target     the lowest validation MAE that the cold start came to within its budget, in raw units
    cold       training until it first came there
    warm       training until it was first as good; 0 where the champion's weights are already
    after      the lowest validation MAE of the warm start within the whole budget

Time and energy are those of training: validating between epochs is the measurement's own and left out of both. Energy is the
project's meter over the whole training, shared out by CPU-seconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DAY = 144  # rows
CHAMPION_DAYS, NEW_DAYS = 45, 60
COMPARED = 20_000  # validation windows between epochs


@dataclass(frozen=True)
class Point:
    """Where a training was after an epoch."""

    train_s: float
    cpu_s: float
    mae: float


@dataclass(frozen=True)
class Course:
    """A training: its points, the first before any step, and the energy of a CPU-second of it."""

    points: list[Point]
    j_per_cpu_s: float

    @property
    def best(self) -> float:
        return min(point.mae for point in self.points)

    def until(self, mae: float) -> Point | None:
        """Where it was first as good as that."""
        return next((point for point in self.points if point.mae <= mae), None)


def candidate_of(model: str, until_days: int, seed: int, budget_s: float, overrides: list[str]) -> tuple[Any, Any, Any, Any]:
    """(candidate, panel, spans, params) of the telemetry up to a day."""
    from cellwright.data.split import spans
    from cellwright.panel import Panel
    from cellwright.params import load
    from cellwright.training.candidates import resolve
    from cellwright.workspace import Workspace

    given = [
        "dataset=city",
        f"train.models=[{model}]",
        f"train.seed={seed}",
        f"train.budget_s={budget_s:g}",
        f"split.until={until_days * DAY}",
        "train.windows_per_epoch=20000",  # short epochs: the course is read between them
        "train.validation_windows=2000",
        "train.patience=50",
        "train.lr_patience=12",
        *overrides,
    ]
    params = load(ROOT / "params.yaml", given)
    panel = Panel.open(Workspace(ROOT).panel("city"))
    return resolve(params, panel.schema, model), panel, spans(params.split, panel.schema), params


def trained(candidate: Any, panel: Any, spans: Any, energy: Any, *, judged_on: Any, warm: Any = None) -> tuple[Any, Course]:
    """Train, and judge between epochs; the judging's own time is taken out of what was used."""
    from cellwright.data.windows import Windows
    from cellwright.energy.meter import Meter
    from cellwright.training import fit as fitting
    from cellwright.training.batches import Pool
    from cellwright.training.rung import Compared

    windows = Windows(panel, candidate.problem)
    compared = Compared(Pool(windows, windows.origins(*judged_on)), COMPARED, 4096)
    points: list[Point] = []
    start = fitting._start(candidate, panel, spans, warm)
    points.append(Point(0.0, 0.0, compared.mae(start)))
    with _judged(compared, points), Meter(energy) as meter:
        fitted = fitting.fit(candidate, panel, spans, warm=warm)
    reading = meter.reading
    return fitted.forecaster, Course(points, (reading.energy_j or 0.0) / reading.cpu_s)


class _judged:
    """While it lasts, every epoch of a training ends with a judgement that costs it neither time nor budget."""

    def __init__(self, compared: Any, points: list[Point]) -> None:
        self.compared, self.points = compared, points

    def __enter__(self) -> None:
        from cellwright.training.loop import Loop, cpu_clock

        self._epoch_end = Loop.on_train_epoch_end
        compared, points, epoch_end = self.compared, self.points, self._epoch_end

        def judged(loop: Any) -> None:
            wall, cpu = time.monotonic(), cpu_clock()
            mae = compared.mae(loop.forecaster)
            loop._clock = (loop._clock[0] + time.monotonic() - wall, loop._clock[1] + cpu_clock() - cpu)
            epoch_end(loop)
            points.append(Point(loop.progress.elapsed_s, loop.progress.cpu_s, mae))

        Loop.on_train_epoch_end = judged

    def __exit__(self, *_: object) -> None:
        from cellwright.training.loop import Loop

        Loop.on_train_epoch_end = self._epoch_end


def row(model: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One model and seed: champion, cold and warm."""
    old, panel, old_spans, params = candidate_of(model, CHAMPION_DAYS, seed, given.budget_s, given.set)
    new, _, new_spans, _ = candidate_of(model, NEW_DAYS, seed, given.budget_s, given.set)
    judged_on = new_spans.validation
    champion, _ = trained(old, panel, old_spans, params.energy, judged_on=judged_on)
    other = replace(new, settings=replace(new.settings, seed=seed + 100))  # a cold start draws weights of its own
    _, cold = trained(other, panel, new_spans, params.energy, judged_on=judged_on)
    _, warm = trained(new, panel, new_spans, params.energy, judged_on=judged_on, warm=champion)
    first, reached = cold.until(cold.best), warm.until(cold.best)
    assert first is not None
    print(f"{model} {seed}: {cold.best:.4g} cold after {first.cpu_s:.1f} CPU-s; warm {reached}", flush=True)
    return {"model": new.title, "seed": seed, "cold": cold, "warm": warm, "first": first, "reached": reached}


def line(found: dict[str, Any]) -> str:
    cold, warm, first, reached = (found[k] for k in ("cold", "warm", "first", "reached"))
    head = f"| {found['model']} | {found['seed']} | {cold.best:.4f} | {warm.points[0].mae:.4f} "
    came = f"{first.train_s:.1f} s, {first.cpu_s:.1f} CPU-s, {first.cpu_s * cold.j_per_cpu_s:.0f} J"
    if reached is None:
        return f"{head}| {came} | not within the budget | | {warm.best:.4f} |"
    as_good = f"{reached.train_s:.1f} s, {reached.cpu_s:.1f} CPU-s, {reached.cpu_s * warm.j_per_cpu_s:.0f} J"
    return f"{head}| {came} | {as_good} | {1 - reached.cpu_s / first.cpu_s:.0%} | {warm.best:.4f} |"


def page(found: list[dict[str, Any]], wall_s: float) -> str:
    """The result as Markdown."""
    reached = [f for f in found if f["reached"] is not None]
    saved = [1 - f["reached"].cpu_s / f["first"].cpu_s for f in reached]
    joules = [(f["first"].cpu_s * f["cold"].j_per_cpu_s, f["reached"].cpu_s * f["warm"].j_per_cpu_s) for f in reached]
    lines = [
        f"# Warm starts on a new data version, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/warm_start.py {' '.join(sys.argv[1:])}` on {platform.machine()}, one thread, {wall_s:.0f} s in all, load "
        f"average at the end {os.getloadavg()[0]:.1f}.",
        "",
        "| model | seed | target: cold start's best MAE | champion's MAE, untrained | cold until the target | warm until the target | "
        "CPU saved | warm after the whole budget |",
        "|-|-|-|-|-|-|-|-|",
        *map(line, found),
        "",
    ]
    if reached:
        lines.append(
            f"{len(reached)} of {len(found)} warm starts came to the cold start's error within the budget, with a median of "
            f"{statistics.median(saved):.0%} less CPU time; together {sum(b for _, b in joules):.0f} J instead of "
            f"{sum(a for a, _ in joules):.0f} J ({1 - sum(b for _, b in joules) / sum(a for a, _ in joules):.0%} less energy)."
        )
    else:
        lines.append("No warm start came to the cold start's error within the budget.")
    parts = (__doc__ or "").split("\n\n")
    return "\n".join(
        [*lines, "", *parts[2].splitlines(), "", "```", *parts[3].splitlines(), "```", "", *parts[4].rstrip().splitlines(), ""]
    )


def main() -> None:
    """Measure every model and seed, and write the page."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--models", default="mlp,lstm,gru,tcn")
    asked.add_argument("--seeds", default="7,8")
    asked.add_argument("--budget-s", type=float, default=20)
    asked.add_argument("--set", action="append", default=[], help="section.key=value of params.yaml")
    asked.add_argument("--out", type=Path, default=None, help="default: benchmarks/results/<date>-warm-start.md")
    given = asked.parse_args()
    import torch

    from cellwright import versioning
    from cellwright.workspace import Workspace

    torch.set_num_threads(1)
    versioning.reproduce(Workspace(ROOT), "city")
    begun = time.perf_counter()
    found = [row(model, int(seed), given) for model in given.models.split(",") for seed in given.seeds.split(",")]
    text = page(found, time.perf_counter() - begun)
    (given.out or ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-warm-start.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
