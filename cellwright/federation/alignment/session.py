"""One run of a vertical training, from the coordinator's side: which message goes to whom, and when it stops.

The coordinator relays: embeddings to the active party, gradients back. It sees no telemetry and holds no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cellwright.errors import FederationError, Refused
from cellwright.federation.alignment.asking import Left, Traffic, ask
from cellwright.federation.alignment.progress import Ledger, Progress
from cellwright.federation.alignment.rows import SPANS
from cellwright.federation.alignment.vertical_spec import Epoch, Trial, Vertical
from cellwright.federation.contract import Channel, Parcel, Value

Run = Literal["vertical", "alone"]
OnEpoch = Callable[[str, Epoch], None]
WINDOWS = 8192  # of one message of an evaluation


@dataclass(frozen=True)
class Trained:
    """A run that ended."""

    trial: Trial
    windows: dict[str, int]
    widths: dict[str, int]


@dataclass(frozen=True)
class Scores:
    """Sums over the measured targets of some windows."""

    count: int = 0
    absolute: float = 0.0
    squared: float = 0.0
    loss: float = 0.0

    def plus(self, values: Mapping[str, Value]) -> Scores:
        sums = {name: float(values[name]) for name in ("absolute", "squared", "loss")}
        return Scores(self.count + int(values["count"]), **{n: getattr(self, n) + v for n, v in sums.items()})

    def mean(self, name: str) -> float:
        if not self.count:
            raise FederationError("a span holds no measured target of the active party; bring other telemetry, or other shares")
        return float(getattr(self, name)) / self.count


@dataclass(frozen=True)
class Session:
    """One run."""

    channel: Channel
    settings: Vertical
    run: Run
    active: str
    passives: tuple[str, ...]
    ledger: Ledger
    aligned: bool  # whether the parties have their common windows; else the active one takes all it has
    on_epoch: OnEpoch | None = None
    traffic: Traffic = field(default_factory=Traffic)
    counts: dict[str, int] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)

    @property
    def parties(self) -> tuple[str, ...]:
        return self.active, *self.passives

    def through(self) -> Trained:
        """Begin or go on, train, and measure the best weights."""
        done = self.ledger.runs.setdefault(self.run, Progress(learning_rate=self.settings.learning_rate))
        start = self.channel.now() - done.seconds
        done.starts += 1
        self.ledger.save()
        self.traffic.down_bytes.update(done.down_bytes)
        self.traffic.up_bytes.update(done.up_bytes)
        self.traffic.messages += done.messages
        for name in ("cpu_s", "energy_j"):
            getattr(self.traffic, name).update(getattr(done, name))
        self.traffic.energy_source = done.energy_source
        try:
            self._begin()
            if done.epochs:
                self._back(done.epochs[-1].epoch, best=False)
            while not done.ended:
                self._epoch(done)
            self._back(done.best_epoch, best=True)
            validation, test = self._scores("validation"), self._scores("test")
        except Left as error:
            raise self._left(error, done) from error
        return Trained(self._trial(done, validation, test, self.channel.now() - start), self.counts, self.widths)

    def _trial(self, done: Progress, validation: Scores, test: Scores, seconds: float) -> Trial:
        assert done.ended, "a run is measured at its end"
        return Trial(
            status=done.ended,
            best_epoch=done.best_epoch,
            epochs=done.epochs,
            mae_validation=validation.mean("absolute"),
            mae=test.mean("absolute"),
            mse=test.mean("squared"),
            down_bytes={party: self.traffic.down_bytes[party] for party in sorted(self.parties)},
            up_bytes={party: self.traffic.up_bytes[party] for party in sorted(self.parties)},
            messages=self.traffic.messages,
            cpu_s=dict(sorted(self.traffic.cpu_s.items())),
            energy_j=dict(sorted(self.traffic.energy_j.items())),
            energy_source=self.traffic.energy_source,
            seconds=seconds,
        )

    def _left(self, error: Left, done: Progress) -> FederationError:
        kept = f"epoch {done.epochs[-1].epoch}" if done.epochs else "no epoch"
        where = f" and {self.ledger.path}" if self.ledger.path else ""
        return FederationError(
            f"{error}. Run '{self.run}': {kept} was finished before, and is kept by the parties{where}"
            + ("" if self.ledger.path else "; give a checkpoint, so that the next call can go on from there")
        )

    def _ask(self, kind: str, parcels: Mapping[str, Parcel], *wants: str) -> dict[str, Parcel]:
        return ask(self.channel, kind, parcels, deadline_s=self.settings.deadline_s, traffic=self.traffic, wants=wants)

    def _parcel(self, arrays: Mapping[str, np.ndarray] | None = None, **values: Value) -> Parcel:
        return Parcel(arrays=dict(arrays or {}), values={"run": self.run, "round": self._round, **values})

    @property
    def _round(self) -> int:
        """The epoch that is under way; once training has ended the one after the last."""
        return len(self.ledger.runs[self.run].epochs) + 1

    def _begin(self) -> None:
        """Passive parties first: the active one must know their widths."""
        parcel = self._parcel(aligned=self.aligned)
        wants = "width", *SPANS
        replies = self._ask("vertical_begin", dict.fromkeys(self.passives, parcel), *wants) if self.passives else {}
        widths: dict[str, Value] = {f"width/{party}": reply.values["width"] for party, reply in replies.items()}
        replies |= self._ask("vertical_begin", {self.active: self._parcel(None, aligned=self.aligned, **widths)}, *wants)
        for party, reply in replies.items():
            self.widths[party] = int(reply.values["width"])
            counts = {span: int(reply.values[span]) for span in SPANS}
            if self.counts and counts != self.counts:
                raise Refused(f"party '{party}' counts other windows ({counts}) than the rest ({self.counts}); align them anew")
            self.counts.update(counts)

    def _epoch(self, done: Progress) -> None:
        """One epoch, its validation, and what is kept of it."""
        number, start = len(done.epochs) + 1, self.channel.now()
        loss = self._trained(number, done.learning_rate)
        scores = self._scores("validation")
        epoch = Epoch(
            epoch=number,
            train_loss=loss,
            validation_loss=scores.mean("loss"),
            validation_mae=scores.mean("absolute"),
            learning_rate=done.learning_rate,
        )
        if not math.isfinite(loss) or not math.isfinite(epoch.validation_loss):
            raise FederationError(f"the loss of epoch {number} is {loss}; lower federation.vertical.learning_rate")
        after = Progress.of(done.stored())
        after.seconds += self.channel.now() - start
        best = after.judge(epoch, self.settings)
        self._ask("vertical_keep", dict.fromkeys(self.parties, self._parcel(epoch=number, best=best)))
        after.down_bytes, after.up_bytes = dict(self.traffic.down_bytes), dict(self.traffic.up_bytes)
        after.messages, after.energy_source = self.traffic.messages, self.traffic.energy_source
        after.cpu_s, after.energy_j = dict(self.traffic.cpu_s), dict(self.traffic.energy_j)
        done.__dict__.update(after.__dict__)  # only now: an epoch counts when every party has kept it
        self.ledger.save()
        if self.on_epoch:
            self.on_epoch(self.run, epoch)

    def _trained(self, epoch: int, learning_rate: float) -> float:
        """Mean training loss of an epoch, normalised. A gradient goes back with the question for the next embedding."""
        batches = math.ceil(self.counts["train"] / self.settings.batch)
        total, count, gradients = 0.0, 0, dict[str, np.ndarray]()
        sent = [f"gradient/{party}" for party in self.passives]
        for step in range(min(batches, self.settings.steps or batches)):
            asked = {p: self._back_and_on(gradients.get(p), learning_rate, epoch=epoch, step=step) for p in self.passives}
            embeddings = (
                {f"h/{p}": reply.arrays["h"] for p, reply in self._ask("vertical_step", asked, "h").items()} if asked else {}
            )
            parcel = self._parcel(embeddings, epoch=epoch, step=step, learning_rate=learning_rate)
            answer = self._ask("vertical_learn", {self.active: parcel}, "loss", "count", *sent)[self.active]
            gradients = {p: answer.arrays[f"gradient/{p}"] for p in self.passives}
            total, count = total + float(answer.values["loss"]), count + int(answer.values["count"])
        if gradients:
            self._ask("vertical_step", {p: self._back_and_on(g, learning_rate) for p, g in gradients.items()})
        if not count:
            raise FederationError("the training span holds no measured target of the active party; bring other telemetry")
        return total / count

    def _back_and_on(self, gradient: np.ndarray | None, learning_rate: float, **moment: int) -> Parcel:
        return self._parcel({} if gradient is None else {"gradient": gradient}, learning_rate=learning_rate, **moment)

    def _scores(self, span: str) -> Scores:
        """Errors of the present weights on a span."""
        scores = Scores()
        for first in range(0, self.counts[span], WINDOWS):
            some: dict[str, Value] = {"span": span, "first": first, "stop": min(first + WINDOWS, self.counts[span])}
            parcel = self._parcel(None, **some)
            replies = self._ask("vertical_embed", dict.fromkeys(self.passives, parcel), "h") if self.passives else {}
            embeddings = {f"h/{party}": reply.arrays["h"] for party, reply in replies.items()}
            answer = self._ask(
                "vertical_score", {self.active: self._parcel(embeddings, **some)}, "count", "absolute", "squared", "loss"
            )
            scores = scores.plus(answer[self.active].values)
        return scores

    def _back(self, epoch: int, *, best: bool) -> None:
        self._ask("vertical_back", dict.fromkeys(self.parties, self._parcel(epoch=epoch, best=best)))
