"""Mamba: blocks of a selective state space model along the steps.

Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, 2023. Here the steps are mapped to the width with the
calendar beside them, a direct head forecasts all target steps from the last position, and the forecast is a correction (option
`residual`): telemetry of a few steps needs little of what a language model needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.frame import RESIDUALS, Embed, Head, Steps, chain, mix_option, residual_option
from models._layers.mamba import Mamba


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of Mamba."""

    width: int = option(32, "width of the blocks", low=1, high=2048)
    layers: int = option(2, "blocks", low=1, high=32)
    state: int = option(16, "states of each channel", low=1, high=256)
    expansion: int = option(2, "channels for each of the width", low=1, high=8)
    kernel: int = option(4, "steps of the convolution before the scan", low=1, high=16)
    dropout: float = option(0.0, "share of a block's answer dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("linear")
    mix: str = mix_option("shared")


class Block(nn.Module):
    """h + dropout(Mamba(norm(h))), h (batch, history, 1, width)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        o = options
        self.norm = nn.LayerNorm(o.width)
        self.mamba = Mamba(o.width, state=o.state, expansion=o.expansion, kernel=o.kernel)
        self.dropout = nn.Dropout(o.dropout)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.dropout(self.mamba(self.norm(h)))


class Core(nn.Module):
    """h (batch, history, width of a step) to the last position's features (batch, width)."""

    def __init__(self, width: int, options: Options) -> None:
        super().__init__()
        self.enter = nn.Linear(width, options.width)
        self.layers = nn.Sequential(*(Block(options) for _ in range(options.layers)))
        self.norm = nn.LayerNorm(options.width)

    def sequence(self, state: State) -> Tensor:
        """(batch, history, width): step t has seen no later step."""
        return self.norm(self.layers(self.enter(state["h"]).unsqueeze(2)).squeeze(2))

    def forward(self, state: State) -> State:
        return {**state, "h": self.sequence(state)[:, -1]}


class Network(_contract.Network):
    """Mamba blocks over the steps, with the calendar beside each step and beside the head."""

    title = "Mamba"
    paper = "Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, arXiv:2312.00752"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    causal = True

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        steps = Steps(seen)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(seen, steps, residual=options.residual, fold=fold))
        self.blocks.add_module("core", Core(steps.width, options))
        self.blocks.add_module("head", Head(seen, options.width, residual=options.residual, sites=sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "width": trial.suggest_categorical("width", (16, 32, 64)),
            "layers": trial.suggest_int("layers", 1, 3),
            "state": trial.suggest_categorical("state", (4, 8, 16)),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
