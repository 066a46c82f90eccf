"""What vertical federated learning is told, and what comes of it: `federation.vertical` and `vertical.json`."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cellwright.errors import FederationError
from cellwright.federation.alignment.audit_summary import AuditSummary
from cellwright.federation.alignment.rows import Align
from cellwright.federation.contract import Source, Spec
from cellwright.results import Result

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Vertical(Spec):
    """How parties with different features of the same time train one model together."""

    model: str = Field("gru", description="network of the zoo: its blocks before the head are each party's bottom")
    options: dict[str, object] = Field(default_factory=dict, description="the network's own options, the same at every party")
    align: Align = Field("site_time", description="what rows have in common: site and time stamp, or the time stamp alone")
    history: Count = 6  # steps
    horizon: Count = 3  # steps
    calendar: bool = Field(True, description="whether hour and weekday reach the active party's half")
    train: Share = Field(0.8, description="share of the common time stamps; the test span takes what validation leaves")
    validation: Share = 0.1
    scaler: Literal["standard", "robust", "log", "none"] = "standard"
    clip: Positive | None = None  # of scaled inputs
    loss: Literal["mae", "mse", "huber"] = "mae"
    epochs: Count = 40
    steps: Count | None = Field(None, description="optimiser steps an epoch; null: all training windows once")
    batch: Count = 256
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    gradient_clip: Positive | None = 1.0
    patience: Count = Field(8, description="epochs without a better validation loss before it stops as converged")
    lr_patience: Count | None = Field(3, description="such epochs before the learning rate is halved; null: it stays")
    embedding_clip: Positive | None = Field(None, description="longest embedding that leaves a passive party (L2); null: any")
    embedding_noise: Annotated[float, Field(ge=0)] = Field(
        0.0, description="standard deviation of the noise on each number of an embedding, in units of embedding_clip"
    )
    budget_s: Positive | None = Field(
        None, description="longest that one run trains, on the channel's clock, seconds; null: no limit"
    )
    deadline_s: Positive = Field(120, description="longest that a message waits for its answer, seconds")
    seed: int = 7

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train + self.validation >= 1:
            raise ValueError(f"train + validation must leave a test span, found {self.train + self.validation:g}")
        if self.embedding_noise and self.embedding_clip is None:
            raise ValueError("embedding_noise is in units of embedding_clip; set embedding_clip too")
        return self


class Epoch(Result):
    """One epoch."""

    epoch: int
    train_loss: float  # normalised
    validation_loss: float
    validation_mae: float  # raw units
    learning_rate: float


class Trial(Result):
    """One training to its end: all parties together, or the active party alone."""

    status: Literal["converged", "epochs", "budget"]
    best_epoch: int
    epochs: list[Epoch]
    mae_validation: float  # raw units of the active party's targets
    mae: float  # test span
    mse: float
    down_bytes: dict[str, int]  # to each party, exact
    up_bytes: dict[str, int]
    messages: int
    seconds: float  # on the channel's clock
    cpu_s: dict[str, float] = Field(default_factory=dict)  # of each party, for its answers
    energy_j: dict[str, float] = Field(default_factory=dict)  # of the parties that know it
    energy_source: Source | None = None  # the least certain of them

    @property
    def all_bytes(self) -> tuple[int, int]:
        """(from the parties, to the parties)."""
        return sum(self.up_bytes.values()), sum(self.down_bytes.values())

    @property
    def all_energy_j(self) -> float | None:
        """Of all parties; None: nobody knows it."""
        return sum(self.energy_j.values()) if self.energy_j else None


class VerticalResult(Result):
    """A vertical federation."""

    active: str
    passives: list[str]
    model: str
    seed: int
    offered: dict[str, int]  # windows of each party; empty: nobody to align with
    common: int  # windows that all hold
    windows: dict[str, int]  # by span
    widths: dict[str, int]  # numbers in an embedding of each party
    vertical: Trial
    alone: Trial | None  # the active party without the others, same windows and settings
    pooled: Trial | None = None  # one party that holds everything, where that was asked for and can be
    align_bytes: int  # of deployment and sample alignment, all parties, both ways
    align_seconds: float
    align_energy_j: float | None = None  # of the parties, for it; None: nobody knows it
    epsilon_embedding: float | None  # see `epsilon_embedding`; None: no noise
    delta: float
    audit: AuditSummary | None = None  # None: messages were neither signed nor checked


def epsilon_embedding(noise: float, releases: int, delta: float) -> float | None:
    """ε of the embeddings of one window sent `releases` times, for a watcher who knows the bottom network; None: no noise.

    Any two embeddings clipped to length C differ by at most 2C, and the noise has standard deviation noise · C: each release is
    2/noise² zero-concentrated differentially private, releases add up, and ε = ρ + 2 √(ρ ln 1/δ) (Bun and Steinke, TCC 2016). It
    bounds what these vectors tell of the window that went in. It is no bound for a whole training: the bottom's weights, and by
    them the embeddings of *other* windows, depend on the window too.

    Raises:
        FederationError: δ is not between 0 and 1.
    """
    if not 0 < delta < 1:
        raise FederationError(f"δ must lie between 0 and 1, found {delta:g}")
    if not noise:
        return None
    rho = 2 * releases / noise**2
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))
