"""What successive halving saves, and whether it finds the winner of training every candidate in full.

    python benchmarks/halving.py                                  # both data sets, under ten minutes on two cores
    python benchmarks/halving.py --datasets city --budget-s 25 --models mlp,lstm,gru,tcn

Every network of the zoo (or those of --models) is trained twice on the same data with the same seed: in full, and halved. The two
ways take turns in one process tree, in worker processes as users run them; the data come from the data stages (DVC). What comes out
is held against each other on the validation span alone: about `--windows` windows, every site at evenly spread origins, raw units.
The test span is not read. Between epochs 4,000 validation windows are forecast, so that slow networks spend their budget on training.

The winner is the network with the lowest validation MAE. A budget is wall-clock time, so two trainings of one network under it
differ a little by themselves: where the winners differ, their paired difference and its 95 % interval tell whether that is more than
chance.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Way:
    """One way to train all candidates: what it cost, and what each came to."""

    wall_s: float
    cpu_s: float
    energy_j: float | None
    trained: dict[str, Any]  # key -> results.Trained
    mae: dict[str, float]  # key -> validation MAE
    errors: dict[str, np.ndarray]  # key -> (origins,) mean absolute error of each

    @property
    def winner(self) -> str:
        return min(self.mae, key=lambda key: (self.mae[key], key))


def networks() -> list[str]:
    """The zoo without what is fitted in closed form: that is never halved."""
    from importlib import import_module

    from cellwright.families import members

    zoo = {name: import_module(f"models.{name}").Network for name in members("models")}
    return [name for name, network in zoo.items() if not network.closed_form]


def trained(overrides: list[str], mark: str, windows: int) -> Way:
    """Train all candidates of a new run, and forecast the validation span with each."""
    from cellwright import runs, versioning
    from cellwright.params import load
    from cellwright.training.runner import train_all
    from cellwright.workspace import Workspace

    params = load(ROOT / "params.yaml", overrides)
    versioning.reproduce(Workspace(ROOT), params.dataset)
    version = versioning.data_version(Workspace(ROOT), params.dataset)
    ws = runs.open_run(params, ROOT, version, again=f"{mark}{os.getpid()}")
    begun = time.perf_counter()
    outcome = train_all(params, ws)
    wall_s = time.perf_counter() - begun
    for failure in outcome.failures:
        print(f"  {failure.key} failed: {failure.reason}", flush=True)
    energies = [t.energy.energy_j if t.energy else None for t in outcome.trained]
    errors = {t.key: absolute_errors(params, ws, t.key, windows) for t in outcome.trained}
    return Way(
        wall_s=wall_s,
        cpu_s=sum(t.energy.cpu_s if t.energy else t.cpu_s for t in outcome.trained),
        energy_j=None if None in energies else sum(energies),
        trained={t.key: t for t in outcome.trained},
        mae={key: float(np.nanmean(each)) for key, each in errors.items()},
        errors=errors,
    )


def absolute_errors(params: Any, ws: Any, key: str, count: int) -> np.ndarray:
    """(origins,) mean absolute error over sites, steps and targets in about `count` windows of the validation span."""
    from cellwright.data.split import spans
    from cellwright.data.windows import Windows
    from cellwright.forecaster import Forecaster, forecast_panel
    from cellwright.panel import Panel

    panel, forecaster = Panel.open(ws.panel(params.dataset)), Forecaster.load(ws.candidate(key))
    problem = forecaster.problem
    windows = Windows(panel, problem)
    every = windows.origins(*spans(params.split, panel.schema).validation)
    origins = every[np.linspace(0, len(every) - 1, min(len(every), count // windows.sites)).round().astype(int)]
    forecast = forecast_panel(forecaster, windows, origins)
    rows = origins[:, None] + np.arange(problem.horizon)
    truth = np.stack([panel.values(t)[rows] for t in problem.targets], axis=-1)
    measured = np.stack([panel.good(t)[rows] for t in problem.targets], axis=-1)
    return np.nanmean(np.where(measured, np.abs(forecast - truth), np.nan), axis=(1, 2, 3))


def interval(one: np.ndarray, other: np.ndarray, block: int) -> tuple[float, float, float]:
    """(mean, low, high) of one minus other: paired moving-block bootstrap over origins, 95 %."""
    rng, difference = np.random.default_rng(0), one - other
    n, block = len(difference), max(1, min(block, len(difference) // 4))
    starts = rng.integers(0, n - block + 1, (2000, -(-n // block)))
    means = np.nanmean(difference[(starts[..., None] + np.arange(block)).reshape(2000, -1)[:, :n]], axis=1)
    return float(np.nanmean(difference)), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def section(dataset: str, full: Way, halved: Way, given: argparse.Namespace) -> list[str]:
    """The result on one data set as Markdown."""
    networks = sum(t.status != "closed form" for t in full.trained.values())
    wall, cpu = halved.wall_s / full.wall_s, halved.cpu_s / full.cpu_s
    joules = halved.energy_j / full.energy_j if halved.energy_j and full.energy_j else None
    lines = [
        f"## `{dataset}`: {networks} networks, {given.budget_s:g} s each",
        "",
        "| | in full | halved | ratio |",
        "|-|-|-|-|",
        f"| wall, s | {full.wall_s:.1f} | {halved.wall_s:.1f} | {wall:.2f} |",
        f"| CPU-seconds | {full.cpu_s:.1f} | {halved.cpu_s:.1f} | {cpu:.2f} |",
    ]
    if joules is not None:
        lines.append(f"| energy, J (modelled) | {full.energy_j:.0f} | {halved.energy_j:.0f} | {joules:.2f} |")
    lines += [
        "",
        verdict(dataset, full, halved, given),
        "",
        "| network | MAE in full | ended | MAE halved | ended |",
        "|-|-|-|-|-|",
    ]
    for key in sorted(full.mae, key=full.mae.__getitem__):
        a, b = full.trained[key], halved.trained.get(key)
        other = f"{halved.mae[key]:.4g} | {b.reason}" if b else "failed |"
        lines.append(f"| {a.title} | {full.mae[key]:.4g} | {a.status}, {a.train_s:.1f} s | {other} |")
    return [*lines, ""]


def verdict(dataset: str, full: Way, halved: Way, given: argparse.Namespace) -> str:
    """Whether the winner is the same one."""
    first, second = full.winner, halved.winner
    title = full.trained[first].title
    if first == second:
        change = halved.mae[first] / full.mae[first] - 1
        return f"The winner is the same: {title}, MAE {full.mae[first]:.4g} in full and {halved.mae[first]:.4g} halved ({change:+.2%})."
    mean, low, high = interval(halved.errors[second], full.errors[first], given.block)
    beyond = "within chance" if low <= 0 <= high else "beyond chance"
    kept = "went on to the end" if halved.trained[first].status != "halved" else halved.trained[first].reason
    return (
        f"The winners differ: {title} in full, {halved.trained[second].title} halved, where {title} {kept}. Their paired difference is "
        f"{mean:+.3g} (95 % interval {low:+.3g} to {high:+.3g}), {beyond}."
    )


def main() -> None:
    """Measure both ways on each data set, and write the page."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--datasets", default="city,milan-5x5")
    asked.add_argument("--models", default="", help="default: every network of the zoo")
    asked.add_argument("--budget-s", type=float, default=12)
    asked.add_argument("--rungs", type=int, default=2)
    asked.add_argument("--eta", type=float, default=3)
    asked.add_argument("--keep", type=int, default=3)
    asked.add_argument("--windows", type=int, default=12_000, help="of the validation span, on which the two ways are compared")
    asked.add_argument("--block", type=int, default=8, help="block of the bootstrap, in origins that are compared")
    asked.add_argument("--set", action="append", default=[], help="section.key=value of params.yaml")
    asked.add_argument("--out", type=Path, default=None, help="default: benchmarks/results/<date>-halving.md")
    given = asked.parse_args()
    models = given.models.split(",") if given.models else networks()
    halving = [
        f"halving.rungs={given.rungs}",
        f"halving.eta={given.eta:g}",
        f"halving.keep={given.keep}",
        "halving.min_budget_s=0.5",
    ]
    body, begun = [], time.perf_counter()
    for dataset in given.datasets.split(","):
        common = [
            f"dataset={dataset}",
            f"train.models=[{','.join(models)}]",
            f"train.budget_s={given.budget_s:g}",
            "train.validation_windows=4000",
            *given.set,
        ]
        full = trained([*common, "halving.rungs=0"], "full", given.windows)
        print(f"{dataset}, in full: {full.wall_s:.1f} s, {full.winner}", flush=True)
        halved = trained([*common, *halving], "halved", given.windows)
        print(f"{dataset}, halved: {halved.wall_s:.1f} s, {halved.winner}", flush=True)
        body += section(dataset, full, halved, given)
    head = [
        f"# Successive halving against training all in full, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/halving.py {' '.join(sys.argv[1:])}` on {platform.machine()}, {os.cpu_count()} cores, "
        f"{time.perf_counter() - begun:.0f} s in all, load average at the end {os.getloadavg()[0]:.1f}.",
        f"{given.rungs} rungs, eta {given.eta:g}, "
        f"at least {given.keep} go on; the winner is chosen and compared on the validation span alone.",
        "",
    ]
    page = given.out or ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-halving.md"
    page.write_text("\n".join([*head, *body]))
    print("\n".join([*head, *body]))


if __name__ == "__main__":
    main()
