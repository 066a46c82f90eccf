"""Short trainings of a finalist, each kept with its record: none is done twice, and one that was killed goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import Field

from cellwright.data.exogenous import digests
from cellwright.data.split import Spans
from cellwright.errors import TrainingError
from cellwright.files import explained, read_json, write_json
from cellwright.forecaster import Forecaster
from cellwright.kpis._bed import Bed
from cellwright.panel import Panel
from cellwright.results import Result
from cellwright.training import digest
from cellwright.training.candidates import Candidate, Settings, as_json
from cellwright.training.fit import CHECKPOINT, fit

RECORD, _INPUTS = "retrained.json", "inputs.json"
_WINDOWS_AN_EPOCH = 20_000  # so that a short budget is looked at often enough …
_VALIDATION_WINDOWS = 2_000  # … and is not spent on validation
_LEAST_CLOSED_FORM_S = 2.0  # a closed form cannot be cut short: up to this it may take longer than its part of the budget
_JUDGES = ("_bed.py", "_halves.py", "_probe_retraining.py", "_retrained.py")  # what is found out rests on this code


@dataclass(frozen=True)
class Judged:
    """Errors of a training, MAE by the name of what it was judged on; of what it could not be judged on, why."""

    maes: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)


Judge = Callable[[Forecaster], Judged]


class Retrained(Result):
    """One short training: how it ended, and its errors, MAE in the targets' unit by the name of what it was judged on."""

    digest: str
    status: str
    epochs: int
    train_s: float
    budget_s: float
    maes: dict[str, float]
    reasons: dict[str, str] = Field(default_factory=dict)  # why it has no error there


@dataclass(frozen=True)
class Again:
    """Trains a finalist again, for `budget_s` each time."""

    bed: Bed
    budget_s: float

    def __call__(self, name: str, candidate: Candidate, panel: Panel, spans: Spans, judge: Judge) -> Retrained:
        """The record of the training `name`: from an earlier run, or made now.

        Raises:
            TrainingError: training failed, or a closed form would take too long.
            DataError: the rows are too few.
        """
        self._affordable()
        short = replace(candidate, settings=_short(candidate.settings, self.budget_s))
        folder, mark = self.bed.ws.probes(candidate.key) / "retrained" / name, self._digest(short, panel, spans)
        if kept := _kept(folder / RECORD, mark):
            return kept
        if not (folder / _INPUTS).is_file() or read_json(folder / _INPUTS) != {"digest": mark}:
            _emptied(folder)
            write_json(folder / _INPUTS, {"digest": mark})
        fitted = fit(short, panel, spans, folder=folder)
        judged = judge(fitted.forecaster.eval())
        done = Retrained(
            digest=mark,
            status=fitted.status,
            epochs=fitted.epochs,
            train_s=fitted.train_s,
            budget_s=self.budget_s,
            maes=judged.maes,
            reasons=judged.reasons,
        ).save(folder / RECORD)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return done

    def _affordable(self) -> None:
        took_s, most_s = self.bed.trained.train_s, max(self.budget_s, _LEAST_CLOSED_FORM_S)
        if self.bed.candidate.network.closed_form and took_s > most_s:
            raise TrainingError(
                f"its closed form took {took_s:.3g} s and cannot be cut short; a training may take {most_s:.3g} s here: raise "
                "scorecard.budget_s"
            )

    def _digest(self, candidate: Candidate, panel: Panel, spans: Spans) -> str:
        card = self.bed.params.scorecard
        return digest.of(
            {
                "data": self.bed.version.hash,
                "sites": list(panel.schema.sites),
                "spans": spans,
                "test": self.bed.spans.test,
                "candidate": as_json(candidate),
                "exogenous": digests(candidate.problem.exogenous),
                "judged": [card.windows, card.seed, card.area, *(digest.file(Path(__file__).with_name(n)) for n in _JUDGES)],
                "code": digest.sources(candidate.source),
            }
        )


def again(bed: Bed, budget_s: float) -> Again:
    """What trains this finalist again, for `budget_s` each time."""
    return Again(bed, budget_s)


def _short(settings: Settings, budget_s: float) -> Settings:
    def at_most(given: int | None, most: int) -> int:
        return most if given is None else min(given, most)

    return replace(
        settings,
        budget_s=budget_s,
        windows_per_epoch=at_most(settings.windows_per_epoch, _WINDOWS_AN_EPOCH),
        validation_windows=at_most(settings.validation_windows, _VALIDATION_WINDOWS),
    )


def _kept(path: Path, mark: str) -> Retrained | None:
    if not path.is_file():
        return None
    found = Retrained.read(path)
    return found if found.digest == mark else None


def _emptied(folder: Path) -> None:
    if folder.exists():
        with explained(folder):
            shutil.rmtree(folder)
