"""Vertical and transfer federations from params.yaml: parties with other features, owners of another data set (M.3387 10.4).

All parties are played by this process, each on its own panel below .cellwright/federation/owners/, and talk over Flower's Grid. With
`federation.audit` every message of theirs is signed, held against the rules and logged, as those of horizontal rounds are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cellwright.federation.alignment.asked import transfer_asked, vertical_asked
from cellwright.federation.alignment.told import FILES
from cellwright.params import Params, check
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.federation.alignment.transfer import TransferResult
    from cellwright.federation.alignment.vertical_spec import VerticalResult

Say = Callable[[str], None]
VERTICAL, TRANSFER = FILES["vertical"], FILES["transfer"]


def vertical(params: Params, ws: Workspace, *, on_progress: Say = lambda _: None) -> VerticalResult:
    """Train the parties of `federation.vertical` together; one that is finished is found again, one that was cut off goes on.

    Raises:
        WrongUse: parties, features, sites or segments that are not there.
        FederationError: other cadences, no common time stamps, or a training that cannot go on.
    """
    from cellwright.federation.alignment import vertical_run
    from cellwright.federation.alignment.vertical_spec import VerticalResult

    vertical_asked(params)
    if (ws.run_folder / VERTICAL).is_file():
        return VerticalResult.read(ws.run_folder / VERTICAL)
    return vertical_run.train(params, ws, on_progress).save(ws.run_folder / VERTICAL)


def transfer(params: Params, ws: Workspace, *, on_progress: Say = lambda _: None) -> TransferResult:
    """Train a body with the owners of `federation.transfer.source`, then the run's owners with it and without.

    Raises:
        WrongUse: names that are not there, or a source that is the target.
        FederationError: another cadence, nothing of the body that fits, or too few owners.
    """
    from cellwright.federation.alignment import transfer_run
    from cellwright.federation.alignment.transfer import TransferResult

    asked = transfer_asked(params)
    if (ws.run_folder / TRANSFER).is_file():
        return TransferResult.read(ws.run_folder / TRANSFER)
    source = source_params(params, asked.source)
    return transfer_run.train(params, source, ws, on_progress).save(ws.run_folder / TRANSFER)


def source_params(params: Params, source: str) -> Params:
    """The same parameters for the source: its own targets and features, and of its own block in params.yaml span and owners."""
    block = params.for_dataset.get(source) or {}
    raw = params.model_dump(mode="json", by_alias=True)
    owners = (block.get("federation") or {}).get("owners", params.federation.owners)
    split = {name: raw["split"][name] for name in ("train", "validation", "test")} | (block.get("split") or {})
    over = {
        "dataset": source,
        "split": split,
        "problem": {**raw["problem"], "targets": [], "features": [], "exogenous": []},
        "federation": {**raw["federation"], "owners": owners},
    }
    return check(raw | over, f"federation.transfer.source {source}")
