"""The last accepted version of a data set: what its features looked like, as a small JSON in the state folder.

Two versions are kept. A panel that is validated again is compared with the one before it, not with itself, so that running the
stage twice on the same data gives the same result. The file is state, not data: on a fresh clone there is no earlier version,
and the shift is not checked until there is one.
"""

from __future__ import annotations

from pathlib import Path

from cellwright.files import write_text
from cellwright.results import Result
from cellwright.workspace import Workspace


class FeatureSummary(Result):
    """Quantiles of one feature over all sites and rows, in its unit; None where nothing was measured."""

    unit: str
    q05: float | None
    q25: float | None
    q50: float | None
    q75: float | None
    q95: float | None


class Version(Result):
    """What is remembered of a version."""

    fingerprint: str  # of the summaries and the time axis
    rows: int
    last: str  # ISO 8601, or "row 8639" on a relative clock
    features: dict[str, FeatureSummary]


class Accepted(Result):
    """The newest accepted version, and the one before it."""

    current: Version
    previous: Version | None = None


def path(ws: Workspace, dataset: str) -> Path:
    """Where the accepted versions of a data set are remembered."""
    return ws.state / "accepted" / f"{dataset}.json"


def baseline(ws: Workspace, dataset: str, fingerprint: str) -> Version | None:
    """The version that a panel is compared with: the last accepted one that is not the panel itself."""
    file = path(ws, dataset)
    if not file.exists():
        return None
    accepted = Accepted.read(file)
    return accepted.previous if accepted.current.fingerprint == fingerprint else accepted.current


def accept(ws: Workspace, dataset: str, version: Version) -> None:
    """Remember a version that passed."""
    before = baseline(ws, dataset, version.fingerprint)
    write_text(path(ws, dataset), Accepted(current=version, previous=before).model_dump_json(indent=2) + "\n")
