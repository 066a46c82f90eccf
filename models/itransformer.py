"""iTransformer: attention between variates; each variate's whole history is one token.

Liu et al., iTransformer: inverted transformers are effective for time series forecasting, ICLR 2024, arXiv:2310.06625.
Here each variate gets a learnt vector (the paper's tokens are told apart by their values alone: a patch must know its centre),
the calendar's tokens reach over the target steps, norms come first, and instance normalisation is off unless asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers import views
from models._layers.attention import Full, Heads, check_heads, feedforward
from models._layers.frame import RESIDUALS, finished, residual_option
from models._layers.revin import Embed, revin_option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of the iTransformer."""

    width: int = option(32, "width of a token", low=2, high=1024)
    heads: int = option(2, "attention heads; divides the width", low=1, high=64)
    layers: int = option(2, "encoder layers", low=1, high=16)
    feedforward: int = option(64, "width of the feed-forward part", low=1, high=8192)
    dropout: float = option(0.0, "share of activations dropped in training", low=0.0, high=0.9)
    revin: str = revin_option("off")
    residual: str = residual_option("last")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)


class Variates(nn.Module):
    """h (batch, tokens, width): one token a node and feature, node by node, then one a calendar channel.

    `valid` is no variate: it lies beside each variate of its node and says which of its steps are real.
    """

    def __init__(self, problem: Problem, width: int) -> None:
        super().__init__()
        self.has_valid = "valid" in problem.features
        self.variates = len(problem.features) - self.has_valid
        self.series = nn.Linear(problem.history * (1 + self.has_valid), width)
        self.calendar = nn.Linear(problem.history + problem.horizon, width) if problem.known else None
        tokens = problem.nodes * self.variates + len(problem.known)
        self.identity = nn.Parameter(torch.randn(tokens, width) * 0.02)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        series = x[..., : self.variates].permute(0, 2, 3, 1)
        if self.has_valid:
            valid = x[..., -1].transpose(1, 2).unsqueeze(2).expand(-1, -1, self.variates, -1)
            series = torch.cat((series, valid), -1)
        tokens = self.series(series.flatten(1, 2))
        if self.calendar is not None:
            tokens = torch.cat((tokens, self.calendar(known.transpose(1, 2))), 1)
        return tokens + self.identity


class Layer(nn.Module):
    """Attention between the tokens, then a feed-forward part; of the last layer only the forecast tokens are computed."""

    def __init__(self, o: Options, only: Tensor | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(o.width)
        self.heads, self.drop = Heads(o.width, o.heads, Full()), nn.Dropout(o.dropout)
        self.feed = nn.Sequential(nn.LayerNorm(o.width), *feedforward(o.width, o.feedforward, o.dropout))
        self.register_buffer("only", only, persistent=False)

    only: Tensor | None

    def forward(self, h: Tensor) -> Tensor:
        """(batch, tokens, width) to the same, or to the tokens of `only`."""
        seen = self.norm(h)
        asking = seen
        if self.only is not None:
            h, asking = h[:, self.only], seen[:, self.only]
        h = h + self.drop(self.heads(asking, seen))
        return h + self.feed(h)


def forecast_tokens(problem: Problem, variates: int) -> Tensor:
    """Places of the tokens that are forecast: the targets (they come first) of every output node."""
    nodes = torch.arange(problem.nodes)[views.outputs(problem)]
    return (nodes[:, None] * variates + torch.arange(len(problem.targets))).flatten()


class Core(nn.Module):
    """h (batch, tokens, width) to the tokens that are forecast: (batch, outputs · targets, width)."""

    def __init__(self, only: Tensor, o: Options) -> None:
        super().__init__()
        layers = (Layer(o, only if number == o.layers - 1 else None) for number in range(o.layers))
        self.layers = nn.Sequential(*layers, nn.LayerNorm(o.width))

    def forward(self, state: State) -> State:
        return {**state, "h": self.layers(state["h"])}


class Head(nn.Module):
    """Each token to its own variate's forecast, all with the same weights, scaled back where the window was normalised."""

    def __init__(self, problem: Problem, o: Options) -> None:
        super().__init__()
        self.outputs, self.shape = (problem.outputs, len(problem.targets)), (problem.horizon, problem.out_quantiles)
        values = problem.horizon * problem.out_quantiles
        self.map = nn.Linear(o.width, values)
        if o.residual != "none":  # start close to the base
            with torch.no_grad():
                self.map.weight.mul_(0.1)
                self.map.bias.zero_()

    def forward(self, state: State) -> State:
        y = self.map(state["h"]).unflatten(2, self.shape).unflatten(1, self.outputs).permute(0, 3, 1, 2, 4)
        if "scale" in state:
            y = y * state["scale"]
        return finished(y, state, 0)


class Network(_contract.Network):
    """Inverted transformer: attention across nodes and features, feed-forward along time."""

    title = "iTransformer"
    paper = (
        "Liu et al., iTransformer: inverted transformers are effective for time series forecasting, ICLR 2024, arXiv:2310.06625"
    )
    inputs: ClassVar[tuple[Inputs, ...]] = ("all", "patch", "site")
    max_sites = 4000  # attention between more sites costs more than their patches do; a token is a whole history
    presets: ClassVar = {
        "paper": {"width": 512, "heads": 8, "layers": 3, "feedforward": 512, "dropout": 0.1, "revin": "full", "residual": "none"}
    }

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        tokens = Variates(problem, options.width)
        only = forecast_tokens(problem, tokens.variates)
        embed = Embed(problem, tokens, residual=options.residual, revin=options.revin, context=False)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", embed)
        self.blocks.add_module("core", Core(only, options))
        self.blocks.add_module("head", Head(problem, options))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "width": trial.suggest_categorical("width", (32, 64, 128)),
            "layers": trial.suggest_int("layers", 1, 3),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "revin": trial.suggest_categorical("revin", ("off", "centre", "full")),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
