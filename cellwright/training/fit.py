"""Fit one candidate on a panel: by gradient descent in the one loop, or in closed form."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from cellwright.data import neighbours
from cellwright.data.scaler import fit_scaler
from cellwright.data.split import Spans
from cellwright.data.windows import Windows
from cellwright.errors import TrainingError
from cellwright.families import member
from cellwright.forecaster import Forecaster, build
from cellwright.panel import Panel
from cellwright.results import RungFigure
from cellwright.training import loop, losses, memory, seeding, warm_start
from cellwright.training.batches import Drawn, Fixed, Pool, Scaled, derived_seed, scaled
from cellwright.training.candidates import Candidate, Settings
from cellwright.training.checkpoint import Checkpoint, Progress
from cellwright.training.fitters import Ended
from cellwright.training.halving import Rung
from cellwright.training.rung import Compared, Pause, figure_at
from models._contract import Batch, Network

CHECKPOINT = "training.ckpt"
HISTORY = "history.jsonl"
FITTERS = "cellwright.training.fitters"  # a family: each has fit(network, batches, *, seed, budget_s)
_PREPARED_FROM = 20_000  # windows of the sample that `Network.prepare` sees
_VALIDATION_BATCH = 4  # times the training batch: no gradients are kept

Status = Literal["converged", "budget", "max_epochs", "closed form", "halved"]


@dataclass(frozen=True)
class Fitted:
    """A trained forecaster and how it came about."""

    forecaster: Forecaster
    status: Status
    reason: str
    epochs: int
    windows: int  # training windows of one site there are
    train_s: float
    cpu_s: float
    earlier_cpu_s: float  # of it, in processes that were killed before
    peak_memory_bytes: int | None  # see memory.peak_bytes
    validation_loss: float  # infinite: it paused before the first epoch's end
    resumed: int
    rungs: tuple[RungFigure, ...] = ()


def fit(
    candidate: Candidate,
    panel: Panel,
    spans: Spans,
    *,
    folder: Path | None = None,
    warm: Forecaster | None = None,
    rung: Rung | None = None,
    on_epoch: Callable[[loop.Record], None] | None = None,
) -> Fitted:
    """Train `candidate` on the training span, choosing its weights by the validation span. The test span is not read.

    `folder` takes the checkpoint and history.jsonl; a checkpoint found there is gone on from. With `warm` the weights and
    the scaler of that forecaster are the start: its weights only mean something in its own scale. A closed form has no start:
    it is fitted anew.

    With `rung` it pauses there, status "halved", and a later call goes on from the checkpoint as if it had never stopped; that
    needs a `folder`. What is fitted in closed form, or ends before, does not pause.

    Raises:
        DataError: the history is longer than the data, or a span has no measured target.
        TrainingError: the loss is no number, the checkpoint is damaged, or `warm` is of another form.
    """
    memory.begin()
    problem = neighbours.settled(candidate.problem, panel, spans.train, warm.problem if warm else None)
    candidate, windows = replace(candidate, problem=problem), Windows(panel, problem)
    training = Pool(windows, windows.origins(*spans.train, whole_lags=True))
    validation = Pool(windows, windows.origins(*spans.validation))
    forecaster = _start(candidate, panel, spans, warm)
    begun = folder is not None and (folder / CHECKPOINT).is_file()
    if warm is None and not candidate.network.closed_form and not begun:  # a checkpoint holds what was prepared
        prepare(forecaster, training, seed=candidate.settings.seed)
    if candidate.network.closed_form:
        return _fit_closed_form(candidate, forecaster, training, validation, folder)
    return _fit_gradient(candidate, forecaster, training, validation, folder, rung, on_epoch)


def _start(candidate: Candidate, panel: Panel, spans: Spans, warm: Forecaster | None) -> Forecaster:
    s = candidate.settings
    scaler = fit_scaler(panel, candidate.problem, s.scaler, spans.train, s.clip)
    with seeding.lock, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(s.seed, 0))
        forecaster = build(candidate, scaler)
    if warm is None or candidate.network.closed_form:
        return forecaster
    if difference := warm_start.difference(warm.about, forecaster.about):
        raise TrainingError(f"cannot start from the given forecaster: {difference}; train without a warm start")
    forecaster.load_state_dict(warm.state_dict())
    return forecaster


def prepare(forecaster: Forecaster, training: Pool, *, seed: int) -> None:
    """Let the network set its buffers from training windows: an even sample of sites and times, so that long data stay cheap."""
    with torch.no_grad():
        forecaster.network.prepare(Scaled(training, forecaster, most=training.count(_PREPARED_FROM), seed=seed))


def fit_closed_form(network: Network, batches: Iterable[Batch], *, seed: int, budget_s: float | None = None) -> Ended:
    """Fit a network without gradient descent: by its own closed form, or by the fitter that it names, which keeps to the budget."""
    if network.fitter:
        ended: Ended = member(FITTERS, network.fitter, what="fitter").fit(network, batches, seed=seed, budget_s=budget_s)
        return ended
    network.fit_closed_form(batches)
    return Ended("closed form", "fitted in closed form: nothing to converge")


def _fit_gradient(
    candidate: Candidate,
    forecaster: Forecaster,
    training: Pool,
    validation: Pool,
    folder: Path | None,
    rung: Rung | None,
    on_epoch: Callable[[loop.Record], None] | None,
) -> Fitted:
    s = candidate.settings
    if rung and not folder:
        raise ValueError("a training that pauses at a rung needs a folder for what it goes on from")
    pause = Pause(rung.number, s.budget_s * rung.share, Compared(validation, rung.windows, s.batch)) if rung else None
    start = Checkpoint.load(folder / CHECKPOINT) if folder else None
    earlier_cpu_s = start.progress.cpu_s if start else 0.0
    if start:
        start.progress.resumed += 1
    if folder:
        _begin_history(folder, start.progress.records if start else [])

    def note(record: loop.Record) -> None:
        if folder:
            _append(folder, record)
        if on_epoch:
            on_epoch(record)

    checkpoint = folder / CHECKPOINT if folder else None
    module = loop.Loop(forecaster, s, start=start, checkpoint=checkpoint, pause=pause, on_epoch=note)
    drawn = Drawn(
        training,
        batch=s.batch,
        windows_per_epoch=s.windows_per_epoch,
        seed=s.seed,
        epoch=lambda: module.progress.epoch,
        done=lambda: module.progress.batch,
    )
    held = Fixed(validation, batch=s.batch * _VALIDATION_BATCH, limit=s.validation_windows, seed=s.seed)
    loop.run(module, drawn, held)
    p = module.progress
    if module.paused and folder:
        _append(folder, _interim(p))
    elif pause:
        _judge_ended(p, pause, forecaster)
    status, reason = _paused(p) if module.paused else _ended(p, s)
    return Fitted(
        forecaster=forecaster,
        status=status,
        reason=reason,
        epochs=p.epoch,
        windows=training.site_windows,
        train_s=p.elapsed_s,
        cpu_s=p.cpu_s,
        earlier_cpu_s=earlier_cpu_s,
        peak_memory_bytes=p.peak_bytes,
        validation_loss=p.best,
        resumed=p.resumed,
        rungs=tuple(RungFigure(rung=int(r["rung"]), after_s=r["after_s"], validation_mae=r["mae"]) for r in p.rungs),
    )


def _interim(progress: Progress) -> loop.Record:
    """A line of history.jsonl for where it paused; it goes when the training goes on."""
    last, p = progress.rungs[-1], progress
    return {"epoch": p.epoch, "step": p.step, "validation_mae": last["mae"], "elapsed_s": p.elapsed_s, "cpu_s": p.cpu_s}


def _paused(progress: Progress) -> tuple[Status, str]:
    return "halved", f"paused after {progress.elapsed_s:.1f} s, in epoch {progress.epoch + 1}"


def _judge_ended(progress: Progress, pause: Pause, forecaster: Forecaster) -> None:
    """What ended before the rung is compared there with what it has become."""
    if figure_at(progress.rungs, pause.number) is None:
        mae = pause.compared.mae(forecaster)
        progress.rungs.append({"rung": pause.number, "after_s": progress.elapsed_s, "mae": mae, "best": True})


def _ended(progress: Progress, settings: Settings) -> tuple[Status, str]:
    """The status that ended training, and why in a sentence."""
    falling = "was still falling" if progress.stale == 0 else f"had not fallen for {progress.stale} epochs"
    match progress.ended:
        case "converged":
            return "converged", f"no better validation loss for {settings.patience} epochs, after {progress.epoch}"
        case "budget":
            where = f"the budget of {settings.budget_s:g} s ended it in epoch {progress.epoch}"
            return "budget", f"{where}; the validation loss {falling}"
        case "max_epochs":
            return "max_epochs", f"{progress.epoch} epochs are the most allowed; the validation loss {falling}"
    raise TrainingError("training stopped before its end without an error; run it again to resume")


def _begin_history(folder: Path, records: list[loop.Record]) -> None:
    """What the checkpoint knows: a line written after it by a killed process goes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HISTORY).write_text("".join(json.dumps(r) + "\n" for r in records))


def _append(folder: Path, record: loop.Record) -> None:
    with (folder / HISTORY).open("a") as file:
        file.write(json.dumps(record) + "\n")


def _fit_closed_form(
    candidate: Candidate, forecaster: Forecaster, training: Pool, validation: Pool, folder: Path | None
) -> Fitted:
    s = candidate.settings
    began, cpu = time.monotonic(), loop.cpu_clock()
    if folder:
        _begin_history(folder, [])
    forecaster.eval()
    with torch.no_grad():
        some = Scaled(training, forecaster, most=forecaster.network.most_windows(s.budget_s), seed=s.seed)
        ended = fit_closed_form(forecaster.network, some, seed=s.seed, budget_s=s.budget_s - (time.monotonic() - began))
        loss = mean_loss(forecaster, Fixed(validation, batch=s.batch, limit=s.validation_windows, seed=s.seed), s.loss)
    return Fitted(
        forecaster=forecaster,
        status=ended.status,
        reason=ended.reason,
        epochs=0,
        windows=training.site_windows,
        train_s=time.monotonic() - began,
        cpu_s=loop.cpu_clock() - cpu,
        earlier_cpu_s=0.0,
        peak_memory_bytes=memory.peak_bytes(torch.device("cpu")),
        validation_loss=loss,
        resumed=0,
    )


def mean_loss(forecaster: Forecaster, batches: Fixed, kind: str) -> float:
    """Mean loss over measured targets, normalised units.

    Raises:
        TrainingError: there is none.
    """
    total, count = 0.0, 0
    for loaded in batches:
        ready = scaled(forecaster, loaded)
        some, measured = losses.forecast_loss(kind, forecaster.problem, forecaster.network(ready.x, ready.known), ready)
        total, count = total + float(some), count + int(measured)
    if not count:
        raise TrainingError("the validation span holds no measured target; choose another split or other targets")
    return total / count
