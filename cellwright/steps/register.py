"""Step `register`: MLflow learns of the run, its candidates and its choice."""

from __future__ import annotations

from cellwright.params import Params
from cellwright.results import Registered
from cellwright.workspace import Workspace


def register(params: Params, ws: Workspace, *, promote: bool, area: str | None = None) -> Registered:
    """Register the run and write registration.json. `promote` allows the alias `champion` to move; `area` names a part of the network.

    Raises:
        RegistryError: MLflow's store is locked, unreachable or of another schema.
        CellwrightError: the run has no leaderboard yet.
    """
    from cellwright.registry.registration import register_run

    return register_run(params, ws, promote=promote, area=area).save(ws.registration)
