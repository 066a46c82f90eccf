"""Training a federated candidate (`fedavg:gru`): the step `train` for a key that names a rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.errors import FederationError
from cellwright.files import write_text
from cellwright.params import Params
from cellwright.results import Trained
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.federation.contract import Arrays
    from cellwright.federation.results import Federated, Round
    from cellwright.forecaster import Forecaster
    from cellwright.training.candidates import Candidate

Say = Callable[[str], None]
_STATUS = {"converged": "converged", "target": "converged", "rounds": "max_epochs"}  # all else: a budget ended it


def federated_training(
    params: Params,
    ws: Workspace,
    candidate: Candidate,
    *,
    warm_start: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    say: Say = lambda _: None,
) -> tuple[Trained, Forecaster]:
    """From the request to the forecaster; files as in `federation/federate.py`, and history.jsonl. The record is not written here.

    Raises:
        FederationError: too few nodes, a budget that is spent, or owners that keep their scalers.
    """
    from cellwright.federation import federate
    from cellwright.federation.conclusion import history

    bed = federate.bed(params, ws, candidate.key)
    made = federate.planned(bed, say=say)
    start = _start(warm_start) if warm_start else None

    def on_round(record: Round) -> None:
        if on_epoch is not None and record.validation_loss is not None:
            on_epoch({"epoch": float(record.round), "validation_loss": record.validation_loss})

    outcome = federate.trained(bed, made, start=start, say=say, on_round=on_round)
    found, forecaster = federate.concluded(bed, made, outcome)
    write_text(bed.folder / "history.jsonl", "".join(json.dumps(line) + "\n" for line in history(outcome.rounds)))
    if forecaster is None:
        raise FederationError(
            f"{candidate.key}: its owners keep their scalers or their models, so that there is no one forecaster to score; set "
            "federation.share_scalers to true, or use `cellwright federate`, which reports owner by owner"
        )
    return _record(candidate, found, outcome.rounds, forecaster, warm_start), forecaster


def _start(folder: Path) -> Arrays:
    from cellwright.federation.initial import travelling
    from cellwright.forecaster import Forecaster

    return {name: tensor.numpy().copy() for name, tensor in travelling(Forecaster.load(folder).network).items()}


def _record(
    candidate: Candidate, found: Federated, rounds: tuple[Round, ...], forecaster: Forecaster, warm_start: Path | None
) -> Trained:
    from cellwright.steps.train import identity_of

    closed = forecaster.network.closed_form
    losses = [r.validation_loss for r in rounds if r.validation_loss is not None]
    status: Any = "closed form" if closed else _STATUS.get(found.status, "budget")
    return Trained(
        **identity_of(candidate),
        status=status,
        reason=f"{found.reason}; {found.rounds} rounds with {len(found.owners)} owners",
        epochs=found.rounds,
        windows=sum(o.examples for o in found.owners),
        parameters=sum(p.numel() for p in forecaster.network.parameters()),
        train_s=found.wall_s,
        cpu_s=sum(o.cpu_s for o in found.owners),
        peak_memory_bytes=None,
        energy=found.energy,
        validation_loss=min(losses) if losses else None,
        warm_start=warm_start.name if warm_start else None,
        resumed=0,
        data=found.data,
        notes=_notes(found),
    )


def _notes(found: Federated) -> dict[str, str]:
    notes = {"federation": f"{found.rule_title}, {len(found.owners)} owners, {found.timing}, runtime {found.runtime}"}
    if found.privacy:
        spent = f", ε {found.epsilon:.3g} at δ {found.delta:g}" if found.epsilon is not None and found.delta is not None else ""
        notes["privacy"] = ", ".join(found.privacy) + spent
    return notes
