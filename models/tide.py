"""TiDE: a dense encoder and decoder, then a small decoder that is run at each target step with what is known of it.

Das et al., Long-term forecasting with TiDE: time-series dense encoder, TMLR 2023.
Here lag values are covariates of the target steps, the neighbours of a patch enter the encoder, and the last layer of the step
decoder has no layer norm: over the one value that it makes of a step, a norm would leave a constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.frame import RESIDUALS, Fold, base, chain, finished, mix_option, residual_option
from models._layers.future import Future


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of TiDE."""

    hidden: int = option(128, "width of the dense layers", low=1, high=4096)
    encoder_layers: int = option(1, "dense blocks of the encoder", low=1, high=8)
    decoder_layers: int = option(1, "dense blocks of the decoder", low=1, high=8)
    decoded: int = option(16, "width that the decoder gives each target step", low=1, high=512)
    projected: int = option(4, "width that a step's calendar is projected to", low=1, high=128)
    step_hidden: int = option(32, "width of the decoder of single steps", low=1, high=2048)
    norm: bool = option(True, "layer norm behind each dense block", choices=(True, False))
    dropout: float = option(0.1, "share of activations dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("linear")
    mix: str = mix_option("shared")


class Dense(nn.Module):
    """norm(skip(h) + dropout(W2 · relu(W1 · h))), along the last dimension."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, dropout: float, norm: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs), nn.Dropout(dropout))
        self.skip = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs) if norm else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        return self.norm(self.skip(h) + self.inner(h))


class Embed(nn.Module):
    """h (batch, width): the window flat, with the projected calendar; future (batch, horizon, width): what is known of each step."""

    def __init__(self, problem: Problem, options: Options, *, fold: bool) -> None:
        super().__init__()
        self.problem, self.fold, self.base = problem, Fold() if fold else None, base(problem, options.residual)
        self.future = Future(problem)
        steps, known = problem.history + problem.horizon, len(problem.known)
        self.project = self._projection(known, options) if known else None
        self.future_width = self.future.width + (options.projected - known if known else 0)
        self.width = problem.history * problem.nodes * len(problem.features) + (steps * options.projected if known else 0)

    @staticmethod
    def _projection(known: int, options: Options) -> Dense:
        return Dense(known, options.step_hidden, options.projected, dropout=options.dropout, norm=options.norm)

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        if self.fold is not None:
            x, known = self.fold(x, known)
        projected = None if self.project is None else self.project(known)
        out: State = {"h": x.flatten(1) if projected is None else torch.cat((x.flatten(1), projected.flatten(1)), 1)}
        if self.future.width:
            out["future"] = self._future(x, known, projected)
        if self.base is not None:
            out["base"] = self.base(x)
        return out

    def _future(self, x: Tensor, known: Tensor, projected: Tensor | None) -> Tensor:
        """The projected calendar and the lag values of the target steps."""
        future = self.future(x, known)
        if projected is None:
            return future
        return torch.cat((projected[:, self.problem.history :], future[..., len(self.problem.known) :]), 2)


class Core(nn.Module):
    """Dense encoder and decoder: h (batch, width) to (batch, horizon, decoded)."""

    def __init__(self, width: int, horizon: int, options: Options) -> None:
        super().__init__()
        o, self.horizon = options, horizon
        widths = [width] + [o.hidden] * (o.encoder_layers + o.decoder_layers - 1) + [o.decoded * horizon]
        self.layers = nn.Sequential(*(Dense(a, o.hidden, b, dropout=o.dropout, norm=o.norm) for a, b in pairwise(widths)))

    def forward(self, state: State) -> State:
        return {**state, "h": self.layers(state["h"]).unflatten(1, (self.horizon, -1))}


class Head(nn.Module):
    """Decodes each step from its part of h and what is known of it, and adds the base."""

    def __init__(self, problem: Problem, width: int, options: Options, sites: int) -> None:
        super().__init__()
        self.shape, self.sites = (problem.outputs, len(problem.targets), problem.out_quantiles), sites
        self.step = Dense(width, options.step_hidden, math.prod(self.shape), dropout=options.dropout, norm=False)
        if options.residual != "none":  # start close to the base
            with torch.no_grad():
                for layer in (self.step.skip, self.step.inner[2]):
                    layer.weight.mul_(0.1)
                    layer.bias.zero_()

    def forward(self, state: State) -> State:
        steps = torch.cat((state["h"], state["future"]), 2) if "future" in state else state["h"]
        return finished(self.step(steps).unflatten(2, self.shape), state, self.sites)


class Network(_contract.Network):
    """Dense encoder, dense decoder, step decoder, and a linear map from the history past all of them."""

    title = "TiDE"
    paper = "Das et al., Long-term forecasting with TiDE: time-series dense encoder, TMLR 2023, arXiv:2304.08424"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    presets: ClassVar = {
        "paper": {"hidden": 512, "encoder_layers": 2, "decoder_layers": 2, "step_hidden": 128, "decoded": 16, "dropout": 0.3}
    }

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        embed = Embed(seen, options, fold=fold)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", embed)
        self.blocks.add_module("core", Core(embed.width, seen.horizon, options))
        self.blocks.add_module("head", Head(seen, options.decoded + embed.future_width, options, sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "hidden": trial.suggest_categorical("hidden", (64, 128, 256)),
            "encoder_layers": trial.suggest_int("encoder_layers", 1, 2),
            "decoder_layers": trial.suggest_int("decoder_layers", 1, 2),
            "norm": trial.suggest_categorical("norm", (True, False)),
            "dropout": trial.suggest_float("dropout", 0.0, 0.4),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
