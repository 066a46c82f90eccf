"""A rollout as it is kept: one file a model, replaced whole after every change, so that a killed controller goes on from it.

<rollouts>/<model>.json            the rollout: its state, its parameters, what the guards say
<rollouts>/<model>.evidence.json   what the edges had seen at the last event
<rollouts>/<model>.wish            what a person has decided, until the controller has done it
<rollouts>/<model>.lock            held by the controller that drives it
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field

from cellwright.bundle.manifest import check_name
from cellwright.edge.evidence import Evidence
from cellwright.errors import UnknownName, WorkspaceError, WrongUse
from cellwright.files import write_text
from cellwright.lifecycle.rollout.rules import Said, State
from cellwright.params import Rollout
from cellwright.results import Result

Wish = Literal["promoted", "rolled_back"]
TargetName = Literal["store", "hub"]


class Registration(Result):
    """The registered model behind a rollout, in MLflow's numbers."""

    model_name: str
    version: str  # the challenger's
    before: str | None  # the champion's; None: there was none


class Rolling(Result):
    """A rollout: what it is, how far it is, and what is said of it."""

    state: State
    params: Rollout
    digest: str  # of the challenger's manifest
    target: TargetName = "store"
    registration: Registration | None = None
    applied: bool = False  # whether the state is in effect where requests are answered
    warm_until_s: float | None = None  # epoch; until then the old version stays warm
    said: tuple[Said, ...] = ()
    waiting: dict[str, str] = Field(default_factory=dict)  # who cannot be asked, and why

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state.outcome != "running" and self.applied and self.warm_until_s is None


class Evidences(Result):
    """What the edges had seen."""

    of: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Files:
    """The files of one model's rollout. `model`: a bundle's name."""

    folder: Path
    model: str

    def __post_init__(self) -> None:
        check_name(self.model, "0.0.0")

    @property
    def document(self) -> Path:
        return self.folder / f"{self.model}.json"

    def read(self) -> Rolling:
        """The rollout of this model.

        Raises:
            UnknownName: there was none.
            CellwrightError: its file is damaged.
        """
        if not self.document.is_file():
            raise UnknownName("rollout", self.model, names(self.folder), "`cellwright rollout start` begins one.")
        return Rolling.read(self.document)

    def evidence(self) -> tuple[Evidence, ...]:
        """What the edges had seen at the last event."""
        path = self.folder / f"{self.model}.evidence.json"
        return Evidences.read(path).of if path.is_file() else ()

    def keep_evidence(self, seen: tuple[Evidence, ...]) -> None:
        """Keep what the edges have seen."""
        Evidences(of=seen).save(self.folder / f"{self.model}.evidence.json")

    @contextmanager
    def held(self, wait_s: float = 0.0) -> Iterator[None]:
        """Be the one controller of this rollout.

        Raises:
            WorkspaceError: another is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / f"{self.model}.lock", timeout=wait_s):
                yield
        except Timeout:
            raise WorkspaceError(
                f"another process drives the rollout of {self.model}; wait for it, or decide it with "
                f"`cellwright rollout promote|rollback {self.model}`"
            ) from None

    def wish(self, wanted: Wish) -> None:
        """Leave a decision for the controller that runs."""
        write_text(self.folder / f"{self.model}.wish", wanted)

    def wished(self) -> Wish | None:
        """The decision that was left. Raises WrongUse where it is none that there is."""
        path = self.folder / f"{self.model}.wish"
        if not path.is_file():
            return None
        match path.read_text():
            case "promoted":
                return "promoted"
            case "rolled_back":
                return "rolled_back"
            case other:
                raise WrongUse(f"{path} must hold promoted or rolled_back, found '{other[:40]}'; delete it")

    def granted(self) -> None:
        """The decision was carried out."""
        (self.folder / f"{self.model}.wish").unlink(missing_ok=True)


def names(folder: Path) -> list[str]:
    """Models that have, or had, a rollout."""
    return sorted(p.name.removesuffix(".json") for p in folder.glob("*.json") if not p.name.endswith(".evidence.json"))
