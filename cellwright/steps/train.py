"""Step `train`: one candidate, from the panel to a forecaster with its record."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellwright.errors import CellwrightError, TrainingError
from cellwright.files import explained, read_json, write_json
from cellwright.panel import Panel, PanelSchema
from cellwright.params import Params
from cellwright.results import DataVersion, EnergyReading, Trained
from cellwright.training import own_model
from cellwright.training.halving import PAUSED, Rung, reached
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.data.split import Spans
    from cellwright.training.candidates import Candidate
    from cellwright.training.fit import Fitted

RECORD = "candidate.json"
_ELSEWHERE = {"rule", "model", "address", "database", "runtime", "compare", "compare_budget_s"}  # of no candidate's own result
_INPUTS = "inputs.json"  # digest of what the folder's contents were made from


def train(
    params: Params,
    ws: Workspace,
    key: str,
    *,
    warm_start: Path | None = None,
    rung: Rung | None = None,
    shared: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train the candidate `key`, resume it, or return its record if it is trained already from the same inputs.

    Writes candidate.json, forecaster.safetensors and history.jsonl to `ws.candidate(key)`; where it pauses at a rung, the record
    goes to paused.json instead, and the checkpoint stays.

    Args:
        warm_start: folder of a forecaster whose weights and scaler are the start. If it is of another form than the candidate,
            training starts from fresh weights, and the record says so.
        rung: train up to there only; a later call goes on.
        shared: others train at the same time (for the energy reading).
        on_epoch: called with the line of history.jsonl at each epoch's end.
        say: told of requests, topologies and decisions, where the candidate is federated.

    Raises:
        WrongUse: the key, its options or the problem cannot be meant; nothing was started.
        TrainingError: training failed; candidate.json holds the reason.
    """
    from cellwright.data.split import spans as spans_of
    from cellwright.training.candidates import resolve
    from cellwright.versioning import data_version

    panel = Panel.open(ws.panel(params.dataset))
    candidate = resolve(params, panel.schema, key)
    spans = spans_of(params.split, panel.schema)
    version = data_version(ws, params.dataset)
    warm_start, began = initial_of(params, ws, candidate, warm_start)
    unfit = _unfit(warm_start, candidate, panel.schema)
    warm_start = None if unfit else warm_start
    if began:
        say(f"{began}; but {unfit}: fresh weights instead" if unfit else began)
    folder = ws.candidate(key)
    if done := _prepared(folder, _digest(params, ws.root, candidate, version, spans, warm_start), rung):
        return done
    try:
        if candidate.rule:
            return _federated(params, ws, candidate, spans, version, folder, warm_start, unfit, began, on_epoch, say)
        return _train(params, ws, candidate, panel, spans, version, folder, warm_start, unfit, rung, shared, on_epoch)
    except Exception as error:
        reason = str(error) if isinstance(error, CellwrightError) else f"{type(error).__name__}: {error}"
        _failed(identity_of(candidate), version, reason).save(folder / RECORD)
        raise TrainingError(f"{key}: {reason}") from error


def _federated(
    params: Params,
    ws: Workspace,
    candidate: Candidate,
    spans: Spans,
    version: DataVersion,
    folder: Path,
    warm_start: Path | None,
    unfit: str | None,
    began: str,
    on_epoch: Callable[[dict[str, float]], None] | None,
    say: Callable[[str], None],
) -> Trained:
    """Where the data lie: no rungs, no search; the owners meter their own energy."""
    from cellwright.steps.federate import federated_training

    trained, forecaster = federated_training(params, ws, candidate, warm_start=warm_start, on_epoch=on_epoch, say=say)
    forecaster.save(folder)
    notes = {**trained.notes, **({"initial model": began} if began else {})}
    notes |= {"start": f"fresh weights, not those offered: {unfit}"} if unfit else {}
    return trained.model_copy(update={"train_rows": _learnt(spans, version, warm_start), "notes": notes}).save(folder / RECORD)


def prepared(params: Params, ws: Workspace, key: str) -> None:
    """Empty a candidate's folder if what is in it was made from other inputs.

    Raises:
        WrongUse: the key, its options or the problem cannot be meant.
    """
    from cellwright.data.split import spans as spans_of
    from cellwright.training.candidates import resolve
    from cellwright.versioning import data_version

    schema, version = Panel.open(ws.panel(params.dataset)).schema, data_version(ws, params.dataset)
    spans = spans_of(params.split, schema)
    _prepared(ws.candidate(key), _digest(params, ws.root, resolve(params, schema, key), version, spans, None), None)


def note_failure(params: Params, ws: Workspace, key: str, reason: str) -> None:
    """Keep why a candidate failed that could not say so itself: it cannot be built, or its process was killed."""
    from cellwright.versioning import data_version

    record = ws.candidate(key) / RECORD
    if record.is_file():
        return
    model, preset = own_model.split(key)
    unknown: dict[str, Any] = {"paper": "", "problem": {}, "options": {}, "settings": {}}
    identity = {"key": key, "model": model, "preset": preset or None, "title": key, "seed": params.train.seed, **unknown}
    _failed(identity, data_version(ws, params.dataset), reason).save(record)


def initial_of(params: Params, ws: Workspace, candidate: Candidate, given: Path | None) -> tuple[Path | None, str]:
    """The folder of the forecaster that a candidate starts from, and why in a sentence where `federation.initial` decided it.

    Raises:
        RegistryError: the store cannot be used, or the champion's files are gone.
    """
    if candidate.rule is None or candidate.network.closed_form or given is not None or params.federation.initial == "seed":
        return given, ""
    from cellwright.registry.start import initial

    found = initial(params, ws)
    return (Path(found.folder) if found.folder else None), found.sentence


def _unfit(warm_start: Path | None, candidate: Candidate, schema: PanelSchema) -> str | None:
    """Why the given start is none for the candidate; a closed form has no start."""
    from cellwright.training.warm_start import unfit

    return unfit(warm_start, candidate, schema) if warm_start and not candidate.network.closed_form else None


def _prepared(folder: Path, digest: str, rung: Rung | None) -> Trained | None:
    """The record of the same inputs, if it is finished or has come to the rung; otherwise a folder without other inputs' files.

    A failure is tried again, and one that was dropped is no end for who asks for more of it.
    """
    same = (folder / _INPUTS).is_file() and read_json(folder / _INPUTS).get("digest") == digest
    if not same:
        _emptied(folder)
        write_json(folder / _INPUTS, {"digest": digest})
        return None
    trained = Trained.read(folder / RECORD) if (folder / RECORD).is_file() else None
    if trained is not None and trained.status not in ("failed", "halved"):
        return trained
    paused = _paused(folder)
    if rung is None or paused is None or not reached(paused, rung):
        (folder / RECORD).unlink(missing_ok=True)
        return None
    if trained is not None and trained.status == "failed":
        (folder / RECORD).unlink()
    return paused


def _paused(folder: Path) -> Trained | None:
    return Trained.read(folder / PAUSED) if (folder / PAUSED).is_file() else None


def _emptied(folder: Path) -> None:
    """Nothing is left, or it is said: a checkpoint that stayed would be gone on from under other inputs."""
    if folder.exists():
        with explained(folder):
            shutil.rmtree(folder)


def _federation(params: Params, root: Path) -> list[Any]:
    from cellwright.federation.fleet import digest

    return [params.federation.model_dump(mode="json", exclude=_ELSEWHERE), digest(params.federation, root)]


def _digest(params: Params, root: Path, candidate: Candidate, version: DataVersion, spans: Spans, warm_start: Path | None) -> str:
    from cellwright.data.exogenous import digests
    from cellwright.forecaster import FILE
    from cellwright.training import digest
    from cellwright.training.candidates import as_json

    return digest.of(
        {
            "data": version.hash,
            "spans": spans,
            "candidate": as_json(candidate),
            "exogenous": digests(candidate.problem.exogenous),
            "search": params.search.model_dump() if params.search.trials else None,
            "warm_start": digest.file(warm_start / FILE) if warm_start else None,
            "federation": _federation(params, root) if candidate.rule else None,
            "code": digest.sources(candidate.source),
        }
    )


def _train(
    params: Params,
    ws: Workspace,
    candidate: Candidate,
    panel: Panel,
    spans: Spans,
    version: DataVersion,
    folder: Path,
    warm_start: Path | None,
    unfit: str | None,
    rung: Rung | None,
    shared: bool,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> Trained:
    from cellwright.energy.meter import Meter
    from cellwright.forecaster import Forecaster
    from cellwright.training.fit import CHECKPOINT, fit
    from cellwright.training.search import search

    warm = Forecaster.load(warm_start) if warm_start else None
    trials = 0
    if params.search.trials and warm is None:
        candidate, trials = search(params, ws, candidate, panel, spans)
    _read(panel, candidate)
    with Meter(params.energy, shared=shared, threads=params.runner.threads_per_worker) as meter:
        fitted = fit(candidate, panel, spans, folder=folder, warm=warm, rung=rung, on_epoch=on_epoch)
    fitted.forecaster.save(folder)
    trained = _record(candidate, version, fitted, _whole(_paused(folder), meter.reading, fitted), warm_start, trials)
    notes = {**trained.notes, "start": f"fresh weights, not those offered: {unfit}"} if unfit else trained.notes
    trained = trained.model_copy(update={"train_rows": _learnt(spans, version, warm_start), "notes": notes})
    if trained.status == "halved":
        return trained.save(folder / PAUSED)
    trained.save(folder / RECORD)
    for left in (CHECKPOINT, PAUSED):
        (folder / left).unlink(missing_ok=True)
    return trained


def _learnt(spans: Spans, version: DataVersion, warm_start: Path | None) -> tuple[int, int]:
    """The training rows, and those that the weights of a warm start on the same data set were trained on before."""
    start, stop = spans.train
    before = Trained.read(warm_start / RECORD) if warm_start and (warm_start / RECORD).is_file() else None
    if before is None or before.train_rows is None or before.data.dataset != version.dataset:
        return start, stop
    return min(start, before.train_rows[0]), max(stop, before.train_rows[1])


def _read(panel: Panel, candidate: Candidate) -> None:
    """Reading the panel, and importing what that takes, is not the candidate's energy."""
    from cellwright.data.channels import measured

    for feature in measured(candidate.problem):
        panel.values(feature)
        panel.good(feature)


def _record(
    candidate: Candidate,
    version: DataVersion,
    fitted: Fitted,
    energy: EnergyReading | None,
    warm_start: Path | None,
    trials: int,
) -> Trained:
    return Trained(
        **identity_of(candidate),
        status=fitted.status,
        reason=fitted.reason,
        epochs=fitted.epochs,
        windows=fitted.windows,
        parameters=sum(p.numel() for p in fitted.forecaster.network.parameters()),
        train_s=fitted.train_s,
        cpu_s=fitted.cpu_s,
        peak_memory_bytes=fitted.peak_memory_bytes,
        energy=energy,
        validation_loss=fitted.validation_loss if math.isfinite(fitted.validation_loss) else None,
        warm_start=warm_start.name if warm_start else None,
        resumed=fitted.resumed,
        data=version,
        trials=trials,
        notes=dict(fitted.forecaster.network.notes),
        rungs=fitted.rungs,
    )


def _failed(identity: dict[str, Any], version: DataVersion, reason: str) -> Trained:
    return Trained(
        **identity,
        status="failed",
        reason=reason,
        epochs=0,
        windows=0,
        parameters=0,
        train_s=0.0,
        cpu_s=0.0,
        peak_memory_bytes=None,
        energy=None,
        validation_loss=None,
        warm_start=None,
        resumed=0,
        data=version,
    )


def identity_of(candidate: Candidate) -> dict[str, Any]:
    """Who a candidate is, as fields of its record."""
    from cellwright.training.candidates import as_json

    return {
        "key": candidate.key,
        "model": candidate.model,
        "preset": candidate.preset,
        "title": candidate.title,
        "paper": candidate.network.paper,
        "seed": candidate.settings.seed,
        **as_json(candidate),
    }


def _whole(before: Trained | None, reading: EnergyReading, fitted: Fitted) -> EnergyReading | None:
    """The energy of all of training: of what came before a pause, with it.

    What a killed process used since was not metered: it is added by its CPU-seconds.
    """
    from cellwright.energy.stretches import added, grown

    known_s = before.cpu_s if before else 0.0
    unmetered_s = max(0.0, fitted.earlier_cpu_s - known_s)
    metered_s = fitted.cpu_s - fitted.earlier_cpu_s
    if unmetered_s > 0 and metered_s <= 0:
        return None
    if unmetered_s > 0:
        words = f"resumed {fitted.resumed} times, earlier stretches by their CPU-seconds"
        reading = grown(reading, 1 + unmetered_s / metered_s, words)
    if before is None:
        return reading
    return None if before.energy is None else added(before.energy, reading)
