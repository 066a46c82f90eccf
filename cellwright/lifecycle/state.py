"""What the monitor remembers between runs, in one file: the cursor, the residuals, what drifted and what was done about it.

One file that is replaced whole: a run that is killed between any two lines has either happened or not, so no row is lost or counted
twice.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from cellwright.errors import FormatError
from cellwright.files import write_bytes

HOURS = 48  # of a weekday, then of a weekend


@dataclass(frozen=True)
class Drift:
    """A change at one site, as a detector saw it."""

    site: str
    row: int  # of the panel, when it was noticed
    time_ms: int
    size: float  # relative change of the error: +0.5 is half as much again
    began: int | None = None  # row at which it began, as far as the detector can tell


@dataclass(frozen=True)
class State:
    """See the module. `residuals` holds rows [scored - len, scored), 1 = the site's usual error at that hour, NaN = not measured."""

    version: str  # of the champion that was watched
    scored: int  # the cursor: rows before this one have been seen
    baseline: np.ndarray  # (48, sites) usual absolute error by hour of day, weekdays then weekends, in the target's unit
    residuals: np.ndarray  # (rows, sites) float32
    since: np.ndarray  # (sites,) int64: first row that the site's present detector has seen
    pending: tuple[Drift, ...] = field(default=())  # nothing was done about these yet
    last_retraining: int | None = None  # row
    untold: str | None = None  # the last observation, as JSON, until its events are known to be out

    @classmethod
    def read(cls, path: Path) -> State | None:
        """The state, or None before the first run.

        Raises:
            FormatError: the file is damaged.
        """
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as held:
                about = json.loads(bytes(held["about"]).decode())
                arrays = {name: held[name] for name in ("baseline", "residuals", "since")}
            if arrays["baseline"].shape[0] != HOURS:
                raise ValueError(f"its baseline has {arrays['baseline'].shape[0]} hours, expected {HOURS}")
            pending = tuple(Drift(**d) for d in about.pop("pending"))
            return cls(**arrays, **about, pending=pending)
        except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise FormatError(
                f"{path} is damaged ({error}); delete it to watch anew from the end of the champion's data"
            ) from error

    def save(self, path: Path) -> None:
        """Write whole or not at all."""
        about: dict[str, Any] = {name: getattr(self, name) for name in ("version", "scored", "last_retraining", "untold")}
        about["pending"] = [asdict(d) for d in self.pending]
        held = io.BytesIO()
        np.savez_compressed(
            held,
            about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
            baseline=self.baseline,
            residuals=self.residuals,
            since=self.since,
        )
        write_bytes(path, held.getvalue())

    def gathered(self, sites: int, rows: int) -> State:
        """Without the pending drifts that fewer than `sites` sites show and that are older than `rows`: false alarms, one by one."""
        if len({d.site for d in self.pending}) >= sites:
            return self
        return replace(self, pending=tuple(d for d in self.pending if d.row >= self.scored - rows))

    def remembering(self, rows: int) -> State:
        """Only the newest `rows` residuals."""
        return replace(self, residuals=self.residuals[-rows:])
