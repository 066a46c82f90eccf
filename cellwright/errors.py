"""The exceptions of Cellwright, one tree.

    CellwrightError                 the job failed (exit code 1)
    ├── WrongUse                    the request cannot be meant (exit code 2)
    │   ├── ParamsError             params.yaml, --set
    │   └── UnknownName             no such data set, model, KPI …; says which there are
    ├── DataError                   telemetry that cannot be used
    │   ├── SourceError             a source that is missing, unreachable or has the wrong checksum
    │   ├── FormatError             a file that is not what the catalogue says
    │   ├── ExpectationFailed       the data broke an expectation
    │   └── NothingNew              a growing source holds nothing since the last version
    ├── TrainingError               a candidate that could not be trained or scored
    ├── RegistryError               MLflow's store is locked, old or lacks the version
    ├── BundleError                 a bundle that is incomplete, tampered with or wrongly signed
    ├── DeltaError                  a patch that is malformed, does not fit, or rebuilds other bytes
    ├── EdgeError                   an edge server that cannot serve or be reached
    ├── QosError                    quality of service that the network does not give, or cannot be asked for
    ├── HubError                    a hub that cannot serve or be reached
    │   ├── HubRefused              the hub refuses a request; says why (cellwright/hub/refusals.py has the kinds)
    │   └── GrantRefused            a grant that is malformed, expired or not the hub's
    ├── FederationError             a federation that cannot begin or go on
    │   └── Refused                 a message, a node or a request that breaks a rule; says which
    │       └── Spoilt              a sealed sum that nodes spoilt; names them
    └── WorkspaceError              disk full, folder not writable, run locked by another process

Every message says what was expected, what was found and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CellwrightError(Exception):
    """The job failed; the message is for the person who runs it."""

    exit_code = 1


class WrongUse(CellwrightError):
    """The request itself is wrong: nothing was started."""

    exit_code = 2


class ParamsError(WrongUse):
    """A parameter is missing, misspelt or out of range."""


class UnknownName(WrongUse):
    """A name that no member of a family has."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        more = f" {hint}" if hint else ""
        super().__init__(f"there is no {what} '{name}'. There are: {', '.join(names)}.{guess}{more}")
        self.name, self.known = name, names


class DataError(CellwrightError):
    """Telemetry that cannot be used as it is."""


class SourceError(DataError):
    """A source is missing, unreachable, or its bytes are not those of the catalogue."""


class FormatError(DataError):
    """A file is not what the catalogue says it is."""


class ExpectationFailed(DataError):
    """The data broke an expectation; training was not started."""


class NothingNew(DataError):
    """A growing source holds nothing since the last version."""


class TrainingError(CellwrightError):
    """A candidate could not be trained or scored."""


class RegistryError(CellwrightError):
    """The model registry cannot be used, or lacks what was asked for."""


class BundleError(CellwrightError):
    """A bundle is incomplete, tampered with, or not signed by the expected key."""


class DeltaError(CellwrightError):
    """A patch between two versions of a file is malformed, does not fit the file at hand, or rebuilds other bytes."""


class EdgeError(CellwrightError):
    """An edge server cannot serve, or cannot be reached."""


class HubError(CellwrightError):
    """A hub cannot serve, or cannot be reached."""


class HubRefused(HubError):
    """The hub refuses a request; the message says why, and nothing was changed."""


class GrantRefused(HubError):
    """A grant is malformed, expired, not valid yet, or not signed by this hub."""


class QosError(CellwrightError):
    """The network refuses a quality of service, has none that suffices, or cannot be asked."""


class FederationError(CellwrightError):
    """A federation cannot begin or go on: too few nodes, a budget that is spent, a runtime that cannot be reached."""


class Refused(FederationError):
    """A message, a node or a request breaks a rule; nothing of it was taken."""


class Spoilt(Refused):
    """Nodes spoilt a sealed sum. `nodes`: each of them, and what it did."""

    def __init__(self, message: str, nodes: dict[str, str]) -> None:
        super().__init__(message)
        self.nodes = nodes


class WorkspaceError(CellwrightError):
    """A folder is not writable, the disk is full, or another process holds the run."""
