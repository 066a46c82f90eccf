"""GRU: gated recurrent unit.

Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014.
No decoder here: one direct head forecasts all steps from the last state, and it forecasts a correction (option `residual`): on
telemetry that trains in far fewer steps than forecasting the value itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from models import _contract
from models._contract import Inputs, Problem, Trial, option
from models._layers.frame import RESIDUALS, mix_option, residual_option
from models._layers.recurrent import recurrent_blocks


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of the GRU."""

    hidden: int = option(64, "width of the state", low=1, high=2048)
    layers: int = option(1, "layers of cells", low=1, high=8)
    dropout: float = option(0.0, "share of the state dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")
    mix: str = mix_option("flat")


class Network(_contract.Network):
    """GRU over the steps, with the calendar beside each step and beside the head."""

    title = "GRU"
    paper = "Cho et al., Learning phrase representations using RNN encoder-decoder, EMNLP 2014, arXiv:1406.1078"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    causal = True

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        o = options
        self.blocks = recurrent_blocks(
            nn.GRU, problem, hidden=o.hidden, layers=o.layers, dropout=o.dropout, residual=o.residual, mix=o.mix
        )

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "hidden": trial.suggest_categorical("hidden", (32, 64, 128)),
            "layers": trial.suggest_int("layers", 1, 2),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
