"""Checkpoints of a training in progress, so that a killed training goes on from there, and a paused one is continued.

Each is written whole: at each epoch's end, and where a training pauses (`halving`), which may be within an epoch.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellwright.errors import TrainingError
from cellwright.files import write_bytes

Weights = dict[str, Tensor]


@dataclass
class Progress:
    """How far a training is. All of it is stored, so that nothing restarts with the process."""

    epoch: int = 0  # epochs that ended
    step: int = 0
    batch: int = 0  # batches of the epoch under way that are done; 0 between epochs
    best: float = float("inf")  # validation loss
    stale: int = 0  # epochs since the best one
    since_cut: int = 0  # epochs without a better loss since the learning rate was last halved
    elapsed_s: float = 0.0  # training seconds, of all processes that worked on it
    cpu_s: float = 0.0
    peak_bytes: int | None = 0  # None: not known of one of these processes
    resumed: int = 0
    ended: str = ""  # "", or the status that ended it
    records: list[dict[str, float]] = field(default_factory=list)
    rungs: list[dict[str, float]] = field(default_factory=list)  # a line a pause: see rung.Figure


@dataclass
class Checkpoint:
    """Everything that an uninterrupted run would carry from one epoch, or one batch, to the next."""

    progress: Progress
    weights: Weights
    best_weights: Weights
    optimizer: dict[str, Any]
    midway: dict[str, Tensor] = field(default_factory=dict)  # within an epoch: its sum of losses, and the random states

    def save(self, path: Path) -> None:
        """Write whole or not at all.

        Raises:
            WorkspaceError: the disk is full or the folder is not writable.
        """
        buffer = io.BytesIO()
        torch.save({**vars(self), "progress": asdict(self.progress)}, buffer)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Checkpoint | None:
        """What `save` wrote, on the CPU; None if there is none. Only tensors and plain values are read: no code runs.

        Raises:
            TrainingError: the file is damaged.
        """
        if not path.is_file():
            return None
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
            return cls(Progress(**stored.pop("progress")), **stored)
        except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            # torch's own message advises to load without its safety
            raise TrainingError(f"{path} is damaged ({type(error).__name__}); delete it, and training starts over") from error
