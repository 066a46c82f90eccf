"""Energy of a training, measured again with the machine to itself.

Candidates train side by side, and a reading taken then is only apportioned. Training a finalist once more would take as long
again; every step of a training costs the same, so a few seconds of it are measured and scaled to the steps of the real run. What
comes before the first step (reading, scaling) is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellwright.energy.meter import Meter
from cellwright.energy.stretches import grown
from cellwright.params import Energy
from cellwright.results import EnergyReading, Trained

if TYPE_CHECKING:
    from cellwright.data.split import Spans
    from cellwright.panel import Panel
    from cellwright.training.candidates import Candidate

SERIALLY = "serially"  # the word by which a replayed reading is known among a score's sources
CLOSED_FORM_LIMIT_S = 5.0  # a closed form cannot be cut short; a longer one keeps its apportioned reading


@dataclass(frozen=True)
class Replay:
    """A reading of the whole training, and in words what it rests on."""

    reading: EnergyReading
    words: str


def replayed(
    candidate: Candidate, trained: Trained, panel: Panel, spans: Spans, energy: Energy, *, folder: Path, seconds: float
) -> Replay | None:
    """Measure `seconds` of the training of `candidate`, alone; None for a closed form that would take too long.

    `folder` holds the history.jsonl of the real run; nothing is written there.
    """
    from cellwright.training.fit import fit

    if candidate.network.closed_form and trained.train_s > CLOSED_FORM_LIMIT_S:
        return None
    records: list[Mapping[str, float]] = []
    short = replace(candidate, settings=replace(candidate.settings, budget_s=seconds, max_epochs=max(1, trained.epochs)))
    with Meter(energy) as meter:
        fit(short, panel, spans, on_epoch=records.append)
    if candidate.network.closed_form:
        return Replay(meter.reading, f"measured again, {SERIALLY}")
    steps, real = int(records[-1]["step"]), _steps(folder / "history.jsonl")
    looped = min(1.0, records[-1]["cpu_s"] / meter.reading.cpu_s) if meter.reading.cpu_s else 1.0
    factor = (1 - looped) + looped * real / steps
    return Replay(grown(meter.reading, factor), f"measured {SERIALLY} over {steps} of {real} steps, scaled")


def _steps(history: Path) -> int:
    """Steps of the real run: those of its last epoch's line."""
    return int(json.loads(history.read_text().splitlines()[-1])["step"])
