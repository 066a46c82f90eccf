"""PatchTST: a transformer over patches of the history, every node read alone with the same weights.

Nie et al., A time series is worth 64 words: long-term forecasting with transformers, ICLR 2023; instance normalisation after
Kim et al., Reversible instance normalization (RevIN), ICLR 2022. Here patches shrink to short histories, layer norm replaces
batch norm (exports and federates without running statistics), the head also sees calendar, lags and neighbours, and RevIN is
off unless asked for: x is standardised by site already, and the level within six steps tells much of what follows. Unless asked
otherwise (`channels`) a token holds all nodes' values of a patch and their calendar. Patches are counted from the newest step back
(the paper: from the oldest on, with the newest value repeated), so that up to stride - 1 of the oldest steps are in none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.attention import Full, Layer, check_heads
from models._layers.frame import RESIDUALS, Steps, chain, mix_option, residual_option
from models._layers.revin import Embed, Head, revin_option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of PatchTST."""

    patch_length: int = option(0, "steps of a patch; 0: the paper's 16, or a third of a shorter history", low=0)
    stride: int = option(0, "steps between patches; 0: half a patch, a whole one where patches are short (under 8)", low=0)
    width: int = option(32, "width of a token", low=2, high=1024)
    heads: int = option(2, "attention heads; divides the width", low=1, high=64)
    layers: int = option(2, "encoder layers", low=1, high=16)
    feedforward: int = option(64, "width of the feed-forward part", low=1, high=8192)
    dropout: float = option(0.05, "share of activations dropped in training", low=0.0, high=0.9)
    channels: str = option(
        "mixed",
        "tokens of several nodes: each node alone with the same weights (independent, the paper), or all nodes' values of a "
        "patch and their calendar in one (mixed)",
        choices=("mixed", "independent"),
    )
    revin: str = revin_option("off")
    residual: str = residual_option("last")
    mix: str = mix_option("shared")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)


def patches(history: int, length: int, stride: int) -> Tensor:
    """Positions of each patch (patches, length); the last one ends at the newest step, the oldest steps may be in none.

    Raises:
        ValueError: a patch longer than the history.
    """
    length = length or min(16, max(1, history // 3))
    stride = stride or (length // 2 if length >= 8 else length)
    if length > history:
        raise ValueError(f"a patch of {length} steps does not fit a history of {history}; lower patch_length, or 0 for automatic")
    ends = torch.arange(history - 1, length - 2, -stride).flip(0)
    return ends[:, None] - torch.arange(length - 1, -1, -1)


class Patches(nn.Module):
    """Patches as tokens: h (batch, rows, patches, width); a row is a node, or, with mixed channels, all of them together."""

    places: Tensor

    def __init__(self, problem: Problem, o: Options) -> None:
        super().__init__()
        places = patches(problem.history, o.patch_length, o.stride)
        self.register_buffer("places", places, persistent=False)
        self.steps = Steps(problem) if o.channels == "mixed" else None
        self.rows, values = (1, self.steps.width) if self.steps else (problem.nodes, len(problem.features))
        self.map = nn.Linear(places.shape[1] * values, o.width)
        self.position = nn.Parameter(torch.randn(len(places), o.width) * 0.02)

    @property
    def count(self) -> int:
        """Tokens of a window."""
        return self.rows * len(self.places)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        values = x if self.steps is None else self.steps(x, known).unsqueeze(2)
        return self.map(values[:, self.places].permute(0, 3, 1, 2, 4).flatten(3)) + self.position


class Core(nn.Module):
    """The encoder; rows are rows of its batch. h (batch, rows, patches, width) to (batch, rows · patches · width)."""

    def __init__(self, o: Options) -> None:
        super().__init__()
        layers = (Layer(o.width, o.heads, o.feedforward, o.dropout, Full()) for _ in range(o.layers))
        self.layers = nn.Sequential(*layers, nn.LayerNorm(o.width))

    def forward(self, state: State) -> State:
        h = state["h"]
        rows = h.shape[1]
        return {**state, "h": self.layers(h.flatten(0, 1)).unflatten(0, (-1, rows)).flatten(1)}


class Network(_contract.Network):
    """Transformer over patches, channel-independent; with inputs `patch` (or `all`, mix `flat`) the head mixes the nodes."""

    title = "PatchTST"
    paper = "Nie et al., A time series is worth 64 words: long-term forecasting with transformers, ICLR 2023, arXiv:2211.14730"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    presets: ClassVar = {
        "paper": {
            "width": 128,
            "heads": 16,
            "layers": 3,
            "feedforward": 256,
            "dropout": 0.2,
            "revin": "full",
            "residual": "none",
            "channels": "independent",
        }
    }

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        tokens = Patches(seen, options)
        embed = Embed(seen, tokens, residual=options.residual, revin=options.revin, fold=fold)
        width = tokens.count * options.width
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", embed)
        self.blocks.add_module("core", Core(options))
        self.blocks.add_module("head", Head(seen, width, residual=options.residual, sites=sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "width": trial.suggest_categorical("width", (16, 32, 64)),
            "layers": trial.suggest_int("layers", 1, 3),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "revin": trial.suggest_categorical("revin", ("off", "centre", "full")),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
