"""problem.json: what goes into a bundle's model and what comes out, without torch, for whoever serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from cellwright.results import Result

if TYPE_CHECKING:
    import numpy as np

    from cellwright.panel import PanelSchema
    from models._contract import Problem

VALID = "valid"


class ServedProblem(Result):
    """The problem that a published model answers, with the sites and units it was trained on.

    `features` names the channels of `history` as models._contract.Problem does: measured features, then `target@lag`, then
    `valid` for patches. Scaling happens inside the model; `scaler` describes it for people.
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

    @property
    def measured(self) -> tuple[str, ...]:
        """Features that a request must bring."""
        return tuple(f for f in self.features if f != VALID and "@" not in f)

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
            "clock": self.clock,
            "sites": len(self.sites),
        }


def served(problem: Problem, schema: PanelSchema, neighbours: np.ndarray | None, scaler: dict[str, Any]) -> ServedProblem:
    """Describe `problem` for a bundle. `neighbours`: (sites, nodes) index table, stored for patches only."""
    names = {name for name in problem.features if name != VALID and "@" not in name}
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
    )
