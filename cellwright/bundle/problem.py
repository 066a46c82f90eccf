"""problem.json: what goes into a bundle's model and what comes out, without torch, for whoever serves it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cellwright.results import Result

if TYPE_CHECKING:
    import numpy as np

    from cellwright.panel import PanelSchema
    from models._contract import Problem

VALID, MARK = "valid", "~"


class ServedProblem(Result):
    """The problem that a published model answers, with the sites and units it was trained on.

    `features` names the channels of `history` as models._contract.Problem does: measured features, series joined by time, means of
    the nearest sites (`target~8`), then `target@lag`, then `valid` for patches. Scaling happens inside the model; `scaler` describes
    it for people.
    """

    dataset: str
    history: int
    horizon: int
    cadence_s: float
    inputs: Literal["site", "patch", "all"]
    features: tuple[str, ...]
    targets: tuple[str, ...]
    known: tuple[str, ...]
    lags: tuple[int, ...]
    quantiles: tuple[float, ...]
    units: dict[str, str]
    sites: tuple[str, ...]
    neighbours: tuple[tuple[int, ...], ...] | None  # patches: indices of the sites around each site, -1 outside of the grid
    clock: Literal["utc", "relative"]
    timezone: str
    scaler: dict[str, Any]
    holidays: str = ""  # country or region whose public holidays `holiday` marks
    exogenous: dict[str, str] = Field(default_factory=dict)  # channel -> its source: below the project, or a file's name
    nearest: tuple[tuple[int, ...], ...] | None = None  # indices of the sites that the means are of, a row a site

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """Features that a request must bring of each site."""
        return tuple(f for f in self.features if f != VALID and "@" not in f and MARK not in f and f not in self.exogenous)

    @cached_property
    def means(self) -> tuple[str, ...]:
        """Channels that are means of the nearest sites."""
        return tuple(f for f in self.features if MARK in f)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Channels of `history` that a request brings, directly or not; `valid` is made here."""
        return tuple(f for f in self.features if f != VALID)

    @property
    def cadence_ms(self) -> float:
        return self.cadence_s * 1000

    def summary(self) -> dict[str, Any]:
        """What a client must know to ask."""
        return {
            "history": self.history,
            "horizon": self.horizon,
            "cadence_s": self.cadence_s,
            "inputs": self.inputs,
            "features": {name: self.units[name] for name in self.measured},
            "targets": list(self.targets),
            "lags": list(self.lags),
            "exogenous": list(self.exogenous),
            "neighbours": len(self.nearest[0]) if self.nearest else 0,
            "clock": self.clock,
            "sites": len(self.sites),
        }


def served(problem: Problem, schema: PanelSchema, neighbours: np.ndarray | None, scaler: dict[str, Any]) -> ServedProblem:
    """Describe `problem` for a bundle. `neighbours`: (sites, nodes) index table, stored for patches only."""
    from cellwright.data.channels import measured
    from cellwright.data.exogenous import channel
    from cellwright.data.neighbours import table_of

    names, nearest = measured(problem), table_of(problem, schema)
    return ServedProblem(
        dataset=schema.dataset,
        history=problem.history,
        horizon=problem.horizon,
        cadence_s=problem.cadence_s,
        inputs=problem.inputs,
        features=problem.features,
        targets=problem.targets,
        known=problem.known,
        lags=problem.lags,
        quantiles=problem.quantiles,
        units={f.name: f.unit for f in schema.features if f.name in names},
        sites=schema.sites,
        neighbours=None if problem.inputs != "patch" or neighbours is None else tuple(map(tuple, neighbours.tolist())),
        clock=schema.clock,
        timezone=schema.timezone,
        scaler=scaler,
        holidays=problem.holidays,
        exogenous={channel(spec): _told(spec) for spec in problem.exogenous},
        nearest=None if nearest is None else tuple(map(tuple, nearest.tolist())),
    )


def _told(spec: str) -> str:
    """A source as others may read it: folders of this machine are nobody's business."""
    path, _, column = spec.rpartition(":")
    return f"{Path(path).name}:{column}" if Path(path).is_absolute() else spec
