"""TSMixer: perceptrons along time and along the features, in turn.

Chen et al., TSMixer: an all-MLP architecture for time series forecasting, TMLR 2023 (its form with covariates).
Here each step is first mapped to `hidden` features, so that many sites cost no more than few, layer norm replaces batch norm
(it exports and federates without running statistics), and the forecast is a correction (option `residual`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.frame import RESIDUALS, Fold, Steps, base, chain, finished, mix_option, residual_option
from models._layers.future import Future


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of TSMixer."""

    hidden: int = option(64, "features of a step", low=1, high=1024)
    feedforward: int = option(64, "width of the perceptron along the features", low=1, high=4096)
    layers: int = option(2, "mixing layers over the history; one more follows over the target steps", low=1, high=16)
    dropout: float = option(0.0, "share of activations dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")
    mix: str = mix_option("flat")


class TimeMixing(nn.Module):
    """h + dropout(relu(W · norm(h))) along the steps; all features share W."""

    def __init__(self, steps: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((steps, hidden))
        self.map = nn.Linear(steps, steps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """(batch, steps, hidden) to the same."""
        mixed = self.map.weight @ self.norm(h) + self.map.bias.unsqueeze(1)  # no transposed copies
        return h + self.dropout(nn.functional.relu(mixed))


class FeatureMixing(nn.Module):
    """h + W2 · relu(W1 · norm(h)) along the features; all steps share both."""

    def __init__(self, steps: int, hidden: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((steps, hidden))
        self.inner = nn.Sequential(
            nn.Linear(hidden, feedforward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feedforward, hidden), nn.Dropout(dropout)
        )

    def forward(self, h: Tensor) -> Tensor:
        """(batch, steps, hidden) to the same."""
        return h + self.inner(self.norm(h))


def mixing(steps: int, options: Options) -> nn.Sequential:
    """One layer: along time, then along the features."""
    o = options
    return nn.Sequential(TimeMixing(steps, o.hidden, o.dropout), FeatureMixing(steps, o.hidden, o.feedforward, o.dropout))


class Embed(nn.Module):
    """h (batch, history, hidden): all nodes of a step; future (batch, horizon, width): what is known of each target step."""

    def __init__(self, problem: Problem, options: Options, *, fold: bool) -> None:
        super().__init__()
        self.fold, self.base = Fold() if fold else None, base(problem, options.residual)
        self.steps, self.future = Steps(problem), Future(problem)
        self.map = nn.Linear(self.steps.width, options.hidden)

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        if self.fold is not None:
            x, known = self.fold(x, known)
        out: State = {"h": self.map(self.steps(x, known))}
        if self.future.width:
            out["future"] = self.future(x, known)
        if self.base is not None:
            out["base"] = self.base(x)
        return out


class Core(nn.Module):
    """Mixes the history, maps it to the target steps, and mixes these with what is known of them: h (batch, horizon, hidden)."""

    def __init__(self, problem: Problem, options: Options, future: int) -> None:
        super().__init__()
        self.past = nn.Sequential(*(mixing(problem.history, options) for _ in range(options.layers)))
        self.project = nn.Linear(problem.history, problem.horizon)
        self.align = nn.Linear(options.hidden + future, options.hidden)
        self.ahead = mixing(problem.horizon, options)

    def forward(self, state: State) -> State:
        h = self.project.weight @ self.past(state["h"]) + self.project.bias.unsqueeze(1)
        h = torch.cat((h, state["future"]), 2) if "future" in state else h
        return {**state, "h": self.ahead(self.align(h))}


class Head(nn.Module):
    """A linear map of each step, and the base."""

    def __init__(self, problem: Problem, options: Options, sites: int) -> None:
        super().__init__()
        self.shape, self.sites = (problem.outputs, len(problem.targets), problem.out_quantiles), sites
        self.map = nn.Linear(options.hidden, math.prod(self.shape))
        if options.residual != "none":  # start close to the base
            with torch.no_grad():
                self.map.weight.mul_(0.1)
                self.map.bias.zero_()

    def forward(self, state: State) -> State:
        return finished(self.map(state["h"]).unflatten(2, self.shape), state, self.sites)


class Network(_contract.Network):
    """Time and feature mixing over the steps of all nodes."""

    title = "TSMixer"
    paper = "Chen et al., TSMixer: an all-MLP architecture for time series forecasting, TMLR 2023, arXiv:2303.06053"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "all", "site")
    presets: ClassVar = {"paper": {"layers": 4, "hidden": 64, "feedforward": 64, "dropout": 0.3, "residual": "none"}}

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        embed = Embed(seen, options, fold=fold)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", embed)
        self.blocks.add_module("core", Core(seen, options, embed.future.width))
        self.blocks.add_module("head", Head(seen, options, sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "hidden": trial.suggest_categorical("hidden", (32, 64, 128)),
            "layers": trial.suggest_int("layers", 1, 4),
            "dropout": trial.suggest_float("dropout", 0.0, 0.4),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
