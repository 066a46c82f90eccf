"""MLP: a residual multilayer perceptron on the flattened window.

After Gorishniy et al., Revisiting deep learning models for tabular data, NeurIPS 2021 (its ResNet), without batch norm.
Here the calendar and lag values of the target steps enter with the history, so that hour and traffic interact, and the
forecast is a correction (option `residual`) to the last value or to a linear map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.frame import RESIDUALS, Context, Embed, Head, chain, mix_option, residual_option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of the MLP."""

    hidden: int = option(128, "width of the layers", low=1, high=4096)
    depth: int = option(2, "residual blocks", low=0, high=16)
    dropout: float = option(0.1, "share of activations dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")
    mix: str = mix_option("flat")


class Flat(nn.Module):
    """The whole window and what is known of the target steps, projected: h (batch, hidden)."""

    def __init__(self, problem: Problem, hidden: int) -> None:
        super().__init__()
        self.context = Context(problem)
        window = problem.history * problem.nodes * len(problem.features)
        self.map = nn.Linear(window + self.context.width, hidden)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        flat = x.flatten(1)
        return self.map(torch.cat((flat, self.context(x, known)), 1) if self.context.width else flat)


class Residual(nn.Module):
    """h + dropout(W2 · relu(W1 · norm(h)))."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.Dropout(dropout)
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.inner(h)


class Core(nn.Module):
    """The residual blocks, closed by a norm and a ReLU."""

    def __init__(self, hidden: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Residual(hidden, dropout) for _ in range(depth)), nn.LayerNorm(hidden), nn.ReLU())

    def forward(self, state: State) -> State:
        return {**state, "h": self.layers(state["h"])}


class Network(_contract.Network):
    """Residual MLP on the flattened window."""

    title = "MLP"
    paper = "Gorishniy et al., Revisiting deep learning models for tabular data, NeurIPS 2021, arXiv:2106.11959"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        encoder = Flat(seen, options.hidden)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(seen, encoder, residual=options.residual, fold=fold))
        self.blocks.add_module("core", Core(options.hidden, options.depth, options.dropout))
        self.blocks.add_module("head", Head(seen, options.hidden, residual=options.residual, sites=sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "hidden": trial.suggest_categorical("hidden", (64, 128, 256)),
            "depth": trial.suggest_int("depth", 1, 4),
            "dropout": trial.suggest_float("dropout", 0.0, 0.4),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
