"""Bring the present champion to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from cellwright.params import load
from cellwright.results import Trained
from cellwright.workspace import Workspace
from tasks._run import transient


@dataclass(frozen=True)
class Present:
    """The champion as a starting point."""

    name: str
    version: str
    key: str  # of train.models
    title: str
    folder: str
    cadence_s: float


@task(
    cache_policy=NO_CACHE,
    task_run_name="champion of {dataset}",
    tags=["register"],
    retries=1,
    retry_condition_fn=transient,
    timeout_seconds=600,
)
def find_champion(root: str, dataset: str, overrides: list[str]) -> Present:
    """Fetch the champion's forecaster from the registry.

    Raises:
        RegistryError: there is none.
    """
    from cellwright.registry.champions import present

    ws = Workspace(Path(root))
    params = load(ws.root / "params.yaml", [*overrides, f"dataset={dataset}"])
    champion = present(params, ws)
    name, version, folder = champion.model_name, str(champion.version), Path(str(champion.folder))
    trained = Trained.read(folder / "candidate.json")
    return Present(name, version, trained.key, trained.title, str(folder), float(trained.problem["cadence_s"]))
