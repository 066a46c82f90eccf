"""A candidate's course as MLflow metrics: pure functions from history and scores to points.

`training/…` and `system/…` have an epoch as their step (MLflow shows `system/` in a tab of its own), `validation/…`, `test/…`, `cost/…`
and, of the finalists, `scorecard/…` are final KPIs, `by step/mae` has the forecast step as its step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellwright.report.record import Candidate, Epoch
from cellwright.results import EnergyReading, Trained

_CURVES = ("train_loss", "validation_loss", "learning_rate")


@dataclass(frozen=True)
class Point:
    """One value of a metric. `time_ms`: epoch milliseconds."""

    name: str
    value: float
    time_ms: int
    step: int = 0


def span_of(trained: Trained | None, card: Path | None) -> tuple[int, int]:
    """(start, end) of a candidate's training, epoch milliseconds: its card was written when it ended.

    Where nothing was written, both are now.
    """
    end_s = card.stat().st_mtime if card is not None else time.time()
    return round((end_s - (trained.train_s if trained else 0.0)) * 1000), round(end_s * 1000)


def epoch_points(history: Sequence[Epoch], start_ms: int) -> Iterator[Point]:
    """Losses, learning rate and the process' CPU and memory, a point an epoch."""
    before_s = before_cpu_s = 0.0
    for line in history:
        epoch, now_s, cpu_s = int(line["epoch"]), float(line.get("elapsed_s") or 0.0), line.get("cpu_s")
        at = start_ms + round(now_s * 1000)
        for name in _CURVES:
            yield from _point(f"training/{name}", line.get(name), at, epoch)
        if line.get("rss_bytes"):
            yield from _point("system/process_memory_megabytes", line["rss_bytes"] / 1e6, at, epoch)
        if cpu_s is not None and now_s > before_s and cpu_s >= before_cpu_s:
            yield from _point("system/process_cpu_percent", 100 * (cpu_s - before_cpu_s) / (now_s - before_s), at, epoch)
        before_s, before_cpu_s = now_s, cpu_s or 0.0


def kpi_points(candidate: Candidate, at_ms: int) -> Iterator[Point]:
    """Final KPIs, the error of each forecast step, and what training took."""
    scored, trained = candidate.scored, candidate.trained
    if scored is not None:
        for group, kpis in (("test", scored.test), ("validation", scored.validation), ("cost", scored.cost)):
            for name, value in kpis.items():
                yield from _point(f"{group}/{name}", value, at_ms)
        for step, value in enumerate(scored.mae_by_step, start=1):
            yield from _point("by step/mae", value, at_ms, step)
    for name, value in candidate.probed.kpis.items() if candidate.probed is not None else ():
        yield from _point(f"scorecard/{name}", value, at_ms)
    if candidate.row is not None:
        yield from _point("rank/score", candidate.row.score, at_ms)
    if trained is not None:
        yield from _point("training/epochs", float(trained.epochs), at_ms)
        yield from _point("training/seconds", trained.train_s, at_ms)
        yield from _point("training/cpu_seconds", trained.cpu_s, at_ms)
        yield from (_energy_points(trained.energy, at_ms) if trained.energy else ())


def flat(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names and text, without what is None or empty."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            if value:
                yield name, ", ".join(map(str, value))
        elif value is not None and value != "":
            yield name, str(value)


def _energy_points(energy: EnergyReading, at_ms: int) -> Iterator[Point]:
    for part, reading in (("cpu", energy.cpu), ("ram", energy.ram), ("gpu", energy.gpu)):
        yield from _point(f"energy/train_{part}_j", reading.energy_j, at_ms)
    yield from _point("energy/train_total_j", energy.energy_j, at_ms)
    yield from _point("energy/train_co2_g", energy.co2_g, at_ms)


def _point(name: str, value: float | None, at_ms: int, step: int = 0) -> Iterator[Point]:
    """Nothing for what is absent: a metric that is missing is not 0."""
    if value is not None and math.isfinite(value):
        yield Point(name, float(value), at_ms, step)
