"""The one training loop: a LightningModule that every network is trained by, and the quiet Trainer that runs it."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning
import psutil
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor

from cellwright.errors import TrainingError
from cellwright.forecaster import Forecaster
from cellwright.training import memory, stopping
from cellwright.training.batches import Drawn, Fixed, Loaded, derived_seed, scaled
from cellwright.training.candidates import Settings
from cellwright.training.checkpoint import Checkpoint, Progress, Weights
from cellwright.training.losses import forecast_loss
from cellwright.training.rung import Pause, Paused, figure_at

Record = dict[str, float]  # of one epoch, as in history.jsonl

_BETTER = 1e-4  # relative: smaller gains do not reset the patience


def cpu_clock() -> float:
    """CPU-seconds of this training: of the process, or of the thread where several train in one process."""
    return time.process_time() if threading.current_thread() is threading.main_thread() else time.thread_time()


class Loop(lightning.LightningModule):
    """Trains a forecaster's network in normalised units; keeps the best weights, the budget and the checkpoint."""

    def __init__(
        self,
        forecaster: Forecaster,
        settings: Settings,
        *,
        start: Checkpoint | None = None,
        checkpoint: Path | None = None,
        pause: Pause | None = None,
        on_epoch: Callable[[Record], None] | None = None,
    ) -> None:
        super().__init__()
        self.forecaster, self.settings = forecaster, settings
        self.checkpoint, self.pause, self.on_epoch = checkpoint, pause, on_epoch
        self.progress = start.progress if start else Progress()
        self.best_weights: Weights = start.best_weights if start else {}
        self._optimizer_state = start.optimizer if start else None
        self._midway = start.midway if start else {}
        if start:
            forecaster.network.load_state_dict(start.weights)
        self._clock = (time.monotonic() - self.progress.elapsed_s, cpu_clock() - self.progress.cpu_s)
        self._sums: dict[str, list[Tensor]] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, going on where the checkpoint stopped."""
        s, whole = self.settings, self.trainer.precision == "32-true"  # Lightning clips no gradients of fused and mixed
        optimizer = torch.optim.AdamW(
            self.forecaster.network.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=whole
        )
        if self._optimizer_state:
            optimizer.load_state_dict(self._optimizer_state)
        return optimizer

    def on_train_start(self) -> None:
        """The network is on its device now."""
        memory.forget(self.device)

    def on_train_epoch_start(self) -> None:
        """Dropout depends on (seed, epoch) alone; within an epoch it goes on where a pause left it."""
        torch.manual_seed(derived_seed(self.settings.seed, 3, self.progress.epoch))
        self._sums = {"train": [], "validation": []}
        if self._midway:
            self._sums["train"] = [self._midway["sums"].to(self.device)]
            _set_random_states(self._midway, self.device)
            self._midway = {}

    def _loss(self, batch: Loaded, name: str) -> tuple[Tensor, Tensor]:
        ready = scaled(self.forecaster, batch)
        forecast = self.forecaster.network(ready.x, ready.known)
        total, count = forecast_loss(self.settings.loss, self.forecaster.problem, forecast, ready)
        self._add(name, torch.stack((total.detach().double(), count.double())))
        return total, count

    def _add(self, name: str, pair: Tensor) -> None:
        kept = self._sums[name]
        if kept:
            kept[0] += pair
        else:
            kept.append(pair)

    def on_train_batch_start(self, batch: Loaded, batch_index: int) -> None:
        """Stop here if that was asked for."""
        stopping.look()

    def training_step(self, batch: Loaded, batch_index: int) -> Tensor:
        """Mean loss over the measured targets of the batch."""
        total, count = self._loss(batch, "train")
        return total / count.clamp(min=1)

    def validation_step(self, batch: Loaded, batch_index: int) -> None:
        """Adds to the validation loss."""
        self._loss(batch, "validation")

    def on_train_batch_end(self, outputs: Any, batch: Loaded, batch_index: int) -> None:
        """The budget ends training after any step, and a pause may come after any but an epoch's last."""
        p = self.progress
        p.step, p.batch = p.step + 1, p.batch + 1
        elapsed_s = time.monotonic() - self._clock[0]
        if elapsed_s >= self.settings.budget_s:
            self.trainer.should_stop = True
        elif self.pause and elapsed_s >= self.pause.after_s and batch_index + 1 < self.trainer.num_training_batches:
            self._stop_for_now({"sums": self._sums["train"][0].cpu(), **_random_states(self.device)})

    def on_train_epoch_end(self) -> None:
        """Runs after validation: record, keep the best, decide whether to go on, write the checkpoint."""
        p = self.progress
        p.epoch, p.batch = p.epoch + 1, 0
        p.elapsed_s, p.cpu_s = time.monotonic() - self._clock[0], cpu_clock() - self._clock[1]
        record = self._record()
        p.records.append(record)
        self._judge(record["validation_loss"])
        if p.ended:
            self.trainer.should_stop = True
        if self.checkpoint:
            self._state().save(self.checkpoint)
        if self.on_epoch:
            self.on_epoch(record)
        if self.pause and not p.ended and p.elapsed_s >= self.pause.after_s:
            self._stop_for_now({})

    def _stop_for_now(self, midway: dict[str, Tensor]) -> None:
        """Judge the network, keep all it takes to go on, and leave; judging costs CPU time, but no time of the budget.

        Raises:
            Paused: always.
        """
        p = self.progress
        p.elapsed_s = time.monotonic() - self._clock[0]
        self._judge_rung()
        p.cpu_s = cpu_clock() - self._clock[1]
        if self.checkpoint:
            self._state(midway).save(self.checkpoint)
        raise Paused

    def _judge_rung(self) -> None:
        """The better of the present weights and the best so far stand for the candidate."""
        if self.pause is None:
            return
        network, now = self.forecaster.network, self.pause.compared.mae(self.forecaster)
        figure = {"rung": self.pause.number, "after_s": self.progress.elapsed_s, "mae": now, "best": False}
        if self.best_weights:
            present = _copied(network.state_dict())
            network.load_state_dict(self.best_weights)
            best = self.pause.compared.mae(self.forecaster)
            network.load_state_dict(present)
            figure |= {"mae": best, "best": True} if best <= now else {}
        self.progress.rungs.append(figure)

    def _record(self) -> Record:
        p = self.progress
        peak = memory.peak_bytes(self.device)
        p.peak_bytes = None if peak is None or p.peak_bytes is None else max(p.peak_bytes, peak)
        return {
            "epoch": p.epoch,
            "step": p.step,
            "train_loss": self._mean("train"),
            "validation_loss": self._mean("validation"),
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "elapsed_s": p.elapsed_s,
            "cpu_s": p.cpu_s,
            "rss_bytes": psutil.Process().memory_info().rss,
        }

    def _mean(self, name: str) -> float:
        total, count = self._sums[name][0].tolist()
        value = float(total / count) if count else float("nan")
        if not math.isfinite(value):
            raise TrainingError(
                f"the {name} loss of epoch {self.progress.epoch} is {value} over {int(count)} measured targets; "
                + ("lower learning_rate, or set gradient_clip" if count else "that span holds no measured target")
            )
        return value

    def _judge(self, loss: float) -> None:
        p, s = self.progress, self.settings
        better = loss < p.best * (1 - _BETTER)
        if loss < p.best:
            p.best = loss
            self.best_weights = _copied(self.forecaster.network.state_dict())
        p.stale, p.since_cut = (0, 0) if better else (p.stale + 1, p.since_cut + 1)
        if s.lr_patience and p.since_cut >= s.lr_patience:
            p.since_cut = 0
            for group in self._optimizer.param_groups:
                group["lr"] *= 0.5
        if p.stale >= s.patience:
            p.ended = "converged"
        elif p.elapsed_s >= s.budget_s:
            p.ended = "budget"
        elif p.epoch >= s.max_epochs:
            p.ended = "max_epochs"

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        found: torch.optim.Optimizer = self.trainer.optimizers[0]
        return found

    def _state(self, midway: dict[str, Tensor] | None = None) -> Checkpoint:
        weights = _copied(self.forecaster.network.state_dict())
        return Checkpoint(self.progress, weights, self.best_weights, self._optimizer.state_dict(), midway or {})

    @property
    def paused(self) -> dict[str, float] | None:
        """The line of the rung at which it stands still; None: it goes on, or has ended."""
        return figure_at(self.progress.rungs, self.pause.number) if self.pause and not self.progress.ended else None


def _copied(weights: dict[str, Tensor]) -> Weights:
    return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}


def _random_states(device: torch.device) -> dict[str, Tensor]:
    gpu = {"cuda_random": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"random": torch.get_rng_state(), **gpu}


def _set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["random"])
    if device.type == "cuda" and "cuda_random" in states:
        torch.cuda.set_rng_state(states["cuda_random"], device)


def run(loop: Loop, training: Drawn, validation: Fixed) -> None:
    """Train until the loop ends itself, or pauses; the network then holds the best weights, on the CPU.

    Raises:
        TrainingError: the loss is no number.
        KeyboardInterrupt: Ctrl-C; the last epoch's checkpoint stays.
    """
    if not loop.progress.ended and loop.paused is None:
        trainer = _trainer(loop.settings, shorter_first=loop.progress.batch > 0)
        with suppress(Paused), _interruptible(), torch.random.fork_rng(devices=[]):
            trainer.fit(loop, training, validation)
    loop.cpu()
    line = loop.paused
    if line is None or line["best"]:
        loop.forecaster.network.load_state_dict(loop.best_weights)
    loop.forecaster.eval()


def _trainer(settings: Settings, *, shorter_first: bool) -> lightning.Trainer:
    gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if gpu and not torch.cuda.is_available():
        raise TrainingError("train.device is 'cuda', but torch finds no GPU here; set it to 'auto' or 'cpu'")
    half = settings.precision == "bf16" or (settings.precision == "auto" and gpu and torch.cuda.is_bf16_supported())
    _hush()
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=1,
        precision="bf16-mixed" if half else "32-true",
        max_epochs=-1,  # the loop counts epochs itself, over all processes that worked on it
        gradient_clip_val=settings.gradient_clip,
        plugins=[LightningEnvironment()],  # no guessing of clusters
        inference_mode=False,
        reload_dataloaders_every_n_epochs=int(shorter_first),  # after a pause the first epoch has fewer batches than the next
        barebones=True,  # no logger, progress bar, summary or checkpoints of its own
    )


def _hush() -> None:
    """Lightning's tips and hints stay away from the terminal; its errors do not."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lightning answers Ctrl-C with exit(1) and ignores it from then on; here it stays a KeyboardInterrupt."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
