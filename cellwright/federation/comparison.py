"""What the federation is held against: the same network trained on everyone's data, and by each owner on its own.

Both see what a federated owner sees, each site itself alone, with the same options, scaler and loss, and train until the validation
loss no longer falls. Nobody could train centrally where the data may not move: it is the yardstick, on telemetry that may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cellwright.errors import CellwrightError

if TYPE_CHECKING:
    from pathlib import Path

    from cellwright.data.split import Spans
    from cellwright.forecaster import Forecaster
    from cellwright.panel import Panel
    from cellwright.params import Params
    from cellwright.training.candidates import Candidate

Say = Callable[[str], None]
_LEAST_STEPS = 10  # an epoch of one owner alone: a large batch of few windows would be a step or two


@dataclass(frozen=True)
class Yardstick:
    """Errors of one training by owner: sum of |error| in raw units, and how many targets were measured."""

    absolute: Mapping[str, float]
    counts: Mapping[str, int]
    train_s: float
    cpu_s: float
    missing: Mapping[str, str]  # owners without one, and why

    @property
    def mae(self) -> float | None:
        """Over all owners, weighted by measured targets; None: nothing was measured."""
        count = sum(self.counts.values())
        return sum(self.absolute.values()) / count if count else None

    def of(self, owner: str) -> float | None:
        """One owner's MAE; None: it has none."""
        return self.absolute[owner] / self.counts[owner] if self.counts.get(owner) else None


def central(
    params: Params, panel: Panel, spans: Spans, key: str, groups: Mapping[str, Sequence[int]], folder: Path | None = None
) -> tuple[Yardstick, Forecaster]:
    """Train on everyone's data; judged on each owner's test span.

    Args:
        folder: where the training checkpoints itself; None: nowhere.
    """
    from cellwright.training.fit import fit

    candidate = _patient(params, _candidate(params, panel, key))
    fitted = fit(candidate, panel, spans, folder=folder)
    absolute, count = errors(fitted.forecaster, panel, spans.test)
    index = {owner: np.asarray(sites) for owner, sites in groups.items()}
    stick = Yardstick(
        {owner: float(absolute[sites].sum()) for owner, sites in index.items()},
        {owner: int(count[sites].sum()) for owner, sites in index.items()},
        fitted.train_s,
        fitted.cpu_s,
        {},
    )
    return stick, fitted.forecaster


def alone(params: Params, panels: Mapping[str, Path], spans: Spans, key: str, *, say: Say = lambda _: None) -> Yardstick:
    """Each owner trains on its own panel. One that cannot, for want of data, is listed with the reason."""
    from cellwright.panel import Panel

    absolute: dict[str, float] = {}
    counts: dict[str, int] = {}
    missing: dict[str, str] = {}
    train_s = cpu_s = 0.0
    for number, (owner, folder) in enumerate(panels.items(), 1):
        try:
            total, count, seconds, cpu = _one(params, Panel.open(folder), spans, key)
        except CellwrightError as error:
            missing[owner] = str(error)
            continue
        absolute[owner], counts[owner] = total, count
        train_s, cpu_s = train_s + seconds, cpu_s + cpu
        say(f"{number} of {len(panels)} owners trained alone")
    return Yardstick(absolute, counts, train_s, cpu_s, missing)


def errors(forecaster: Forecaster, panel: Panel, span: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of |error| and number of measured targets of each site: both (sites,), raw units, over the windows of a span."""
    from cellwright.data.windows import Windows
    from cellwright.forecaster import forecast_panel

    problem = forecaster.problem
    windows = Windows(panel, problem)
    origins = windows.origins(*span)
    rows = origins[:, None] + np.arange(problem.horizon)
    forecast = forecast_panel(forecaster, windows, origins)
    truth = np.stack([panel.values(target)[rows] for target in problem.targets], axis=-1)
    measured = np.stack([panel.good(target)[rows] for target in problem.targets], axis=-1)
    absolute = np.where(measured, np.abs(forecast - truth), 0.0)
    return absolute.sum(axis=(0, 1, 3), dtype=np.float64), measured.sum(axis=(0, 1, 3))


def _one(params: Params, panel: Panel, spans: Spans, key: str) -> tuple[float, int, float, float]:
    from cellwright.training.fit import fit

    fitted = fit(_alone(params, _patient(params, _candidate(params, panel, key)), spans), panel, spans)
    absolute, count = errors(fitted.forecaster, panel, spans.test)
    return float(absolute.sum()), int(count.sum()), fitted.train_s, fitted.cpu_s


def _candidate(params: Params, panel: Panel, key: str) -> Candidate:
    from cellwright.federation.initial import candidate_for

    return replace(candidate_for(params, panel.schema, key), rule=None)


def _patient(params: Params, candidate: Candidate) -> Candidate:
    """Trained to early stopping rather than to the benchmark's budget, on all windows of an epoch."""
    budget_s = max(candidate.settings.budget_s, params.federation.compare_budget_s)
    return replace(candidate, settings=replace(candidate.settings, budget_s=budget_s, windows_per_epoch=None))


def _alone(params: Params, candidate: Candidate, spans: Spans) -> Candidate:
    """With the batch of a federated owner, and not larger than makes a few steps an epoch."""
    windows = max(1, spans.train[1] - spans.train[0])
    batch = max(1, min(params.federation.batch, windows // _LEAST_STEPS))
    return replace(candidate, settings=replace(candidate.settings, batch=batch))
