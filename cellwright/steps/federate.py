"""Training a federated candidate (`fedavg:gru`): the step `train` for a key that names a rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.errors import FederationError, ParamsError
from cellwright.files import write_text
from cellwright.params import Federation, Params
from cellwright.results import EnergyReading, Reading, Trained
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.federation.contract import Arrays
    from cellwright.federation.federate import Bed
    from cellwright.federation.planning import Plan
    from cellwright.federation.results import Federated, Round
    from cellwright.federation.rounds import Outcome
    from cellwright.forecaster import Forecaster
    from cellwright.training.candidates import Candidate

Say = Callable[[str], None]
_ENDED = {  # in a sentence; others as they are
    "target": "target reached",
    "rounds": "done",
    "budget": "budget spent",
    "privacy_budget": "privacy budget spent",
}
_STATUS = {"converged": "converged", "target": "converged", "rounds": "max_epochs"}  # all else: a budget ended it


def key_of(params: Params) -> str:
    """The candidate that `cellwright federate` trains: `<federation.rule>:<federation.model>`.

    Raises:
        ParamsError: rule or model are still to be chosen ("auto").
    """
    f = params.federation
    if "auto" in (f.rule, f.model):
        raise ParamsError("federation.rule and federation.model are chosen before a run begins; `cellwright federate` does that")
    return f"{f.rule}:{f.model}"


def federate(params: Params, ws: Workspace, *, on_progress: Say = lambda _: None) -> Federated:
    """Train federated, then compare; a training that is finished is found again. Writes to `ws.candidate(key)`.

    Raises:
        CellwrightError: what the federation raises.
    """
    from cellwright.federation import federate as whole
    from cellwright.federation.results import Federated

    key = key_of(params)
    if one_model(params):
        from cellwright.steps.train import train

        train(params, ws, key, on_epoch=lambda line: on_progress(_line(line)), say=on_progress)
    bed = whole.bed(params, ws, key)
    if not one_model(params):
        _own_models(bed, on_progress)
    found = Federated.read(bed.folder / whole.RESULT)
    if params.federation.compare and found.mae_central is None:
        found = whole.compared(bed, say=on_progress)
    on_progress(sentence(found))
    return found


def one_model(params: Params) -> bool:
    """Whether the rule ends with one model for all owners, which a leaderboard can hold."""
    from cellwright.families import member
    from cellwright.federation.key import RULES

    return bool(member(RULES, params.federation.rule, what="aggregation rule").Rule.one_model)


def sentence(found: Federated) -> str:
    """What came of it, in one sentence."""
    told = [
        f"{found.rule_title} with {_trained(found)} owners: {_ENDED.get(found.status, found.status)} after {found.rounds} rounds"
    ]
    if others := len(found.owners) - _trained(found):
        told.append(f"{others} more were asked for their scalers alone")
    if pooled := [o.owner for o in found.owners if o.scaler]:
        told.append(f"the scaler of {len(pooled)} is not known (the mean of the others stands in), first '{pooled[0]}'")
    told += [f"test MAE {found.mae:.4g}"] if found.mae is not None else []
    if found.mae is not None and found.mae_central and found.mae_alone:
        told.append(
            f"{found.mae / found.mae_central - 1:+.1%} against training on everyone's data ({found.mae_central:.4g}), "
            f"{found.mae / found.mae_alone - 1:+.1%} against each owner alone ({found.mae_alone:.4g})"
        )
    told += [f"ε {found.epsilon:.3g}"] if found.epsilon is not None else []
    return ", ".join(told)


def _trained(found: Federated) -> int:
    return sum(o.trained for o in found.owners)


def _own_models(bed: Bed, say: Say) -> None:
    """Owners that end with models of their own: no forecaster for all sites, nothing to score together."""
    from cellwright.federation import federate as whole
    from cellwright.steps.train import prepared

    prepared(bed.params, bed.ws, bed.key)
    if (bed.folder / whole.RESULT).is_file():
        return
    made = whole.planned(bed, say=say, again=False)
    start = _own_start(bed, say)
    outcome = whole.trained(bed, made, start=start, say=say, on_round=lambda record: say(_line(record.model_dump())))
    _whole(bed.key, outcome)
    whole.concluded(bed, made, outcome)


def _own_start(bed: Bed, say: Say) -> Arrays | None:
    """The initial model of owners that end with models of their own; None: fresh weights."""
    from cellwright.federation.initial import candidate_for
    from cellwright.steps.train import initial_of
    from cellwright.training.warm_start import unfit

    candidate = candidate_for(bed.params, bed.panel.schema, bed.key)
    folder, words = initial_of(bed.params, bed.ws, candidate, None)
    against = unfit(folder, candidate, bed.panel.schema) if folder else None
    if words:
        say(f"{words}; but {against}: fresh weights instead" if against else words)
    return _start(folder) if folder and not against else None


def _line(line: Mapping[str, Any]) -> str:
    number = int(line.get("epoch", line.get("round", 0)))
    return f"round {number}: validation loss {line['validation_loss']:.5g}"


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
    from cellwright.training.checks import check_form

    check_form(params, candidate.key)
    bed = federate.bed(params, ws, candidate.key)
    made = federate.planned(bed, say=say, again=False)
    for line in _not_training(bed, made):
        say(line)
    start = _start(warm_start) if warm_start else None

    def on_round(record: Round) -> None:
        if on_epoch is not None and record.validation_loss is not None:
            on_epoch({"epoch": float(record.round), "validation_loss": record.validation_loss})

    outcome = federate.trained(bed, made, start=start, say=say, on_round=on_round)
    _whole(candidate.key, outcome)
    found, forecaster = federate.concluded(bed, made, outcome)
    write_text(bed.folder / "history.jsonl", "".join(json.dumps(line) + "\n" for line in history(outcome.rounds)))
    if forecaster is None:
        raise FederationError(
            f"{candidate.key}: its owners keep their scalers or their models, so that there is no one forecaster to score; set "
            "federation.share_scalers to true, or use `cellwright federate`, which reports owner by owner"
        )
    return _record(params.federation, candidate, found, outcome.rounds, forecaster, warm_start), forecaster


def _not_training(bed: Bed, made: Plan) -> list[str]:
    """Which owners do not train, in a sentence: one forecaster needs each site's scaler, for which they are asked at the end."""
    from cellwright.federation import federate

    others = federate.covered(bed, made)
    if not others:
        return []
    why = next((c.reasons[0] for c in made.choices if c.node == others[0] and c.reasons), "it is not fit")
    return [
        f"{len(others)} of {len(bed.groups)} owners do not train, first '{others[0]}' ({why}); each is asked for its scaler when the "
        "training is over, so that its sites are forecast too"
    ]


def _whole(key: str, outcome: Outcome) -> None:
    """Whether a training came to its end; one that was taken back is no candidate.

    Raises:
        FederationError: its client cancelled it.
    """
    if outcome.status == "stopped":
        raise FederationError(
            f"{key} was stopped after {len(outcome.rounds)} rounds: {outcome.reason}; nothing is published, the same command goes on"
        )


def _start(folder: Path) -> Arrays:
    from cellwright.federation.initial import travelling
    from cellwright.forecaster import Forecaster

    return {name: tensor.numpy().copy() for name, tensor in travelling(Forecaster.load(folder).network).items()}


def _record(
    params: Federation,
    candidate: Candidate,
    found: Federated,
    rounds: tuple[Round, ...],
    forecaster: Forecaster,
    warm_start: Path | None,
) -> Trained:
    from cellwright.steps.train import identity_of

    closed = forecaster.network.closed_form
    losses = [r.validation_loss for r in rounds if r.validation_loss is not None]
    status: Any = "closed form" if closed else _STATUS.get(found.status, "budget")
    return Trained(
        **identity_of(candidate) | {"settings": identity_of(candidate)["settings"] | _settings(params)},
        status=status,
        reason=f"{found.reason}; {found.rounds} rounds with {_trained(found)} owners",
        epochs=found.rounds,
        windows=sum(o.examples for o in found.owners),
        parameters=sum(p.numel() for p in forecaster.network.parameters()),
        train_s=found.train_s,
        cpu_s=sum(o.cpu_s for o in found.owners) + _coordination_s(found),
        peak_memory_bytes=None,
        energy=_energy(found),
        validation_loss=min(losses) if losses else None,
        warm_start=warm_start.name if warm_start else None,
        resumed=0,
        data=found.data,
        notes=_notes(found),
    )


def _coordination_s(found: Federated) -> float:
    """CPU-seconds of coordinator and auditor in the rounds."""
    training = found.part("training")
    return training.coordinator_cpu_s + training.auditor_cpu_s if training else 0.0


def _energy(found: Federated) -> EnergyReading | None:
    """Of the rounds: owners, coordinator and auditor. None: the owners tell nothing."""
    owners, training = found.energy, found.part("training")
    if owners is None or training is None:
        return owners
    added = (training.coordinator_energy_j or 0.0) + (training.auditor_energy_j or 0.0)
    sources = {owners.cpu.source, training.energy_source}
    source: Any = next((s for s in ("constant", "modelled", "measured") if s in sources), None)
    return owners.model_copy(
        update={
            "cpu": Reading(energy_j=(owners.cpu.energy_j or 0.0) + added, source=source),
            "duration_s": found.train_s,
            "cpu_s": owners.cpu_s + _coordination_s(found),
            "co2_g": training.co2_g,
            "meter": f"{owners.meter}; coordinator and auditor likewise",
        }
    )


def _settings(params: Federation) -> dict[str, Any]:
    """How the owners trained, where central training has other settings."""
    same = ("learning_rate", "weight_decay", "batch", "patience", "lr_patience", "budget_s")
    return {name: getattr(params, name) for name in same} | {"max_epochs": params.rounds, "windows_per_epoch": None}


def _notes(found: Federated) -> dict[str, str]:
    notes = {"federation": f"{found.rule_title}, {_trained(found)} owners, {found.timing}, runtime {found.runtime}"}
    if pooled := [o for o in found.owners if o.scaler]:
        notes["scalers"] = "; ".join(
            f"sites of {o.owner} take the mean of the others' scalers, since its own is not known: {o.scaler}" for o in pooled
        )
    if found.privacy:
        spent = f", ε {found.epsilon:.3g} at δ {found.delta:g}" if found.epsilon is not None and found.delta is not None else ""
        notes["privacy"] = ", ".join(found.privacy) + spent
    return notes
