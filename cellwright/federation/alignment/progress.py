"""How far a vertical training is, on disk: written after every epoch, so that a run goes on where it was cut off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cellwright.errors import FederationError
from cellwright.federation.alignment.vertical_spec import Epoch, Vertical
from cellwright.federation.contract import Source
from cellwright.files import read_json, write_json

_BETTER = 1e-4  # relative: smaller gains do not reset the patience


@dataclass
class Progress:
    """How far one run is."""

    epochs: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best: float = math.inf  # validation loss
    stale: int = 0
    since_cut: int = 0
    learning_rate: float = 0.0
    seconds: float = 0.0  # in epochs, of all processes
    starts: int = 0  # processes that worked on it: one that is cut off has sent a part of an epoch for nothing
    down_bytes: dict[str, int] = field(default_factory=dict)  # up to the last whole epoch, of all processes
    up_bytes: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    energy_j: dict[str, float] = field(default_factory=dict)
    energy_source: Source | None = None
    ended: Literal["", "converged", "epochs", "budget"] = ""

    def judge(self, epoch: Epoch, settings: Vertical) -> bool:
        """Take an epoch into account; whether it is the best so far."""
        loss, best = epoch.validation_loss, epoch.validation_loss < self.best
        better = loss < self.best * (1 - _BETTER)
        self.epochs.append(epoch)
        if best:
            self.best, self.best_epoch = loss, epoch.epoch
        self.stale, self.since_cut = (0, 0) if better else (self.stale + 1, self.since_cut + 1)
        if settings.lr_patience and self.since_cut >= settings.lr_patience:
            self.since_cut, self.learning_rate = 0, self.learning_rate / 2
        if self.stale >= settings.patience:
            self.ended = "converged"
        elif epoch.epoch >= settings.epochs:
            self.ended = "epochs"
        elif settings.budget_s is not None and self.seconds >= settings.budget_s:
            self.ended = "budget"
        return best

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.__dict__, "epochs": [e.model_dump() for e in self.epochs], "best": self.best if self.epochs else None}

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Progress:
        """What `stored` gave."""
        best = math.inf if raw["best"] is None else raw["best"]
        return cls(**{**raw, "epochs": [Epoch(**e) for e in raw["epochs"]], "best": best})


@dataclass(frozen=True)
class Ledger:
    """The progress of all runs of a training, and where it is kept; `mark` says which training it is."""

    path: Path | None
    mark: Mapping[str, Any]
    runs: dict[str, Progress]

    @classmethod
    def open(cls, path: Path | None, mark: Mapping[str, Any]) -> Ledger:
        """What was saved, or an empty one.

        Raises:
            FederationError: it is of another training, or of another form.
        """
        if path is None or not path.is_file():
            return cls(path, mark, {})
        try:
            raw = read_json(path)
            held, runs = raw["of"], {run: Progress.of(stored) for run, stored in raw["runs"].items()}
        except (KeyError, TypeError, ValueError) as error:
            raise FederationError(f"{path} is no checkpoint of a vertical training ({error}); remove it to start anew") from None
        if held != mark:
            raise FederationError(
                f"{path} belongs to another training (other settings, parties or windows); remove it to start anew"
            )
        return cls(path, mark, runs)

    def save(self) -> None:
        """Write it whole, if there is a place for it."""
        if self.path is not None:
            write_json(self.path, {"of": self.mark, "runs": {run: progress.stored() for run, progress in self.runs.items()}})
