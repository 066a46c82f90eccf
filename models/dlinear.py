"""DLinear: a moving average splits the history into trend and remainder; one linear map forecasts from each.

Zeng et al., Are transformers effective for time series forecasting?, AAAI 2023.
Here the moving average shrinks to short histories (paper: 25 of 336 steps), the forecast starts from the last value (their
NLinear's idea, option `residual`), and calendar and lag values of the target steps enter linearly: telemetry needs the hour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers import views
from models._layers.decomposition import averaging
from models._layers.frame import Context, Embed, chain, finished, mix_option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of DLinear."""

    kernel: int = option(25, "steps of the moving average; at most the history", low=1)
    residual: str = option("last", "what the forecast corrects: nothing (the paper), or the last value", choices=("none", "last"))
    mix: str = mix_option("shared")


class Decomposition(nn.Module):
    """h (batch, 2, history, width): trend and remainder of the telemetry of all nodes."""

    average: Tensor

    def __init__(self, problem: Problem, kernel: int) -> None:
        super().__init__()
        self.channels = len(views.telemetry(problem))  # they come first
        self.width = problem.nodes * self.channels
        self.register_buffer("average", averaging(problem.history, kernel), persistent=False)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        steps = x[..., : self.channels].flatten(2)
        trend = self.average @ steps
        return torch.stack((trend, steps - trend), 1)


class Core(nn.Module):
    """One linear map for the trend, one for the remainder; h becomes their sum (batch, outputs of the forecast)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.trend, self.remainder = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, state: State) -> State:
        trend, remainder = state["h"].flatten(2).unbind(1)
        return {**state, "h": self.trend(trend) + self.remainder(remainder)}


class Head(nn.Module):
    """Adds a linear map of the context, if there is one, and the base."""

    def __init__(self, problem: Problem, shape: tuple[int, ...], sites: int) -> None:
        super().__init__()
        self.shape, self.sites = shape, sites
        width = Context(problem).width
        self.map = nn.Linear(width, math.prod(shape), bias=False) if width else None

    def forward(self, state: State) -> State:
        h = state["h"] if self.map is None else state["h"] + self.map(state["context"])
        return finished(h.unflatten(1, self.shape), state, self.sites)


class Network(_contract.Network):
    """Linear maps of trend and remainder. With inputs `patch`, or `all` and mix `flat`, they span all nodes."""

    title = "DLinear"
    paper = "Zeng et al., Are transformers effective for time series forecasting?, AAAI 2023, arXiv:2205.13504"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    presets: ClassVar = {"paper": {"residual": "none"}}

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        split = Decomposition(seen, options.kernel)
        shape = (seen.horizon, seen.outputs, len(seen.targets), seen.out_quantiles)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(seen, split, residual=options.residual, fold=fold))
        self.blocks.add_module("core", Core(seen.history * split.width, math.prod(shape)))
        self.blocks.add_module("head", Head(seen, shape, sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "kernel": trial.suggest_int("kernel", 3, 25, step=2),
            "residual": trial.suggest_categorical("residual", ("none", "last")),
            "mix": trial.suggest_categorical("mix", ("flat", "shared")),
        }
