"""PatchTST: a transformer over patches of the history, every node read alone with the same weights.

Nie et al., A time series is worth 64 words: long-term forecasting with transformers, ICLR 2023; instance normalisation after
Kim et al., Reversible instance normalization (RevIN), ICLR 2022. Here patches shrink to short histories, layer norm replaces
batch norm (exports and federates without running statistics), the head also sees calendar, lags and neighbours, and RevIN is
off unless asked for: x is standardised by site already, and the level within six steps tells much of what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers import views
from models._layers.frame import RESIDUALS, Context, Fold, base, chain, mix_option, residual_option
from models._layers.frame import Head as CommonHead


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of PatchTST."""

    patch_length: int = option(0, "steps of a patch; 0: the paper's 16, or a third of a shorter history", low=0)
    stride: int = option(0, "steps between patches; 0: half a patch, a whole one where patches are short (under 8)", low=0)
    width: int = option(32, "width of a token", low=2, high=1024)
    heads: int = option(4, "attention heads; divides the width", low=1, high=64)
    layers: int = option(2, "encoder layers", low=1, high=16)
    feedforward: int = option(64, "width of the feed-forward part", low=1, high=8192)
    dropout: float = option(0.1, "share of activations dropped in training", low=0.0, high=0.9)
    revin: str = option(
        "off",
        "instance normalisation: off, mean only (centre), mean and deviation (full, the paper)",
        choices=("off", "centre", "full"),
    )
    residual: str = residual_option("last")
    mix: str = mix_option("shared")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads: {self.width} is none of {self.heads}")


def patches(history: int, length: int, stride: int) -> Tensor:
    """Positions of each patch (patches, length); the last one ends at the newest step.

    Raises:
        ValueError: a patch longer than the history.
    """
    length = length or min(16, max(1, history // 3))
    stride = stride or (length // 2 if length >= 8 else length)
    if length > history:
        raise ValueError(f"a patch of {length} steps does not fit a history of {history}; lower patch_length, or 0 for automatic")
    ends = torch.arange(history - 1, length - 2, -stride).flip(0)
    return ends[:, None] - torch.arange(length - 1, -1, -1)


class RevIN(nn.Module):
    """Telemetry and lags of each window less their mean over the history, and divided by their deviation if `scaled`.

    The variance gets 0.01 added (RevIN: 1e-5): x is standardised by site already, and six equal values must not blow up a lag.
    """

    def __init__(self, problem: Problem, *, scaled: bool) -> None:
        super().__init__()
        self.scaled, self.targets = scaled, len(problem.targets)
        self.now = len(views.telemetry(problem))
        self.lagged = [problem.targets.index(name.split("@")[0]) for name in problem.features if "@" in name]
        self.rest = len(problem.features) - self.now - len(self.lagged)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """x normalised, the targets' means and deviations (batch, 1, nodes, targets)."""
        now = x[..., : self.now]
        mean = now.mean(1, keepdim=True)
        scale = (now.var(1, keepdim=True, correction=0) + 0.01).sqrt() if self.scaled else None
        order = list(range(self.now)) + self.lagged
        end = self.now + len(self.lagged)
        out = x[..., :end] - mean[..., order]
        if scale is not None:
            out = out / scale[..., order]
        if self.rest:
            out = torch.cat((out, x[..., end:]), -1)
        return out, mean[..., : self.targets], None if scale is None else scale[..., : self.targets]


class Embed(nn.Module):
    """Patches of every node as tokens: h (batch, nodes, patches, width); beside it context, base and scale."""

    places: Tensor

    def __init__(self, problem: Problem, options: Options, *, fold: bool) -> None:
        super().__init__()
        self.problem, self.fold, self.context = problem, Fold() if fold else None, Context(problem)
        self.revin = RevIN(problem, scaled=options.revin == "full") if options.revin != "off" else None
        self.base = base(problem, options.residual)
        places = patches(problem.history, options.patch_length, options.stride)
        self.register_buffer("places", places, persistent=False)
        self.map = nn.Linear(places.shape[1] * len(problem.features), options.width)
        self.position = nn.Parameter(torch.randn(len(places), options.width) * 0.02)

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        if self.fold is not None:
            x, known = self.fold(x, known)
        normal, out = self._normalised(x)
        tokens = normal[:, self.places].permute(0, 3, 1, 2, 4).flatten(3)
        out["h"] = self.map(tokens) + self.position
        if self.context.width:
            out["context"] = self.context(x, known)
        if self.base is not None:
            out["base"] = self.base(x)
        return out

    def _normalised(self, x: Tensor) -> tuple[Tensor, State]:
        """x after RevIN, and what the head needs to undo it: its mean is the base unless a residual is the base."""
        if self.revin is None:
            return x, {}
        x, mean, scale = self.revin(x)
        seen = views.outputs(self.problem)
        out = {"base": mean[:, :, seen].unsqueeze(-1)}
        if scale is not None:
            out["scale"] = scale[:, :, seen].unsqueeze(-1)
        return x, out


class Layer(nn.Module):
    """Self-attention over the patches of one node, then a feed-forward part, each normalised before and skipped around."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        width, self.heads, self.dropout = options.width, options.heads, options.dropout
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop = nn.Dropout(options.dropout)
        self.feed = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, options.feedforward),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(options.feedforward, width),
            nn.Dropout(options.dropout),
        )

    def forward(self, h: Tensor) -> Tensor:
        """(rows, patches, width) to the same."""
        q, k, v = self.qkv(self.norm(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        h = h + self.drop(self.out(seen.transpose(1, 2).flatten(2)))
        return h + self.feed(h)


class Core(nn.Module):
    """The encoder; nodes are rows of its batch. h (batch, nodes, patches, width) to (batch, nodes · patches · width)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer(options) for _ in range(options.layers)), nn.LayerNorm(options.width))

    def forward(self, state: State) -> State:
        h = state["h"]
        nodes = h.shape[1]
        return {**state, "h": self.layers(h.flatten(0, 1)).unflatten(0, (-1, nodes)).flatten(1)}


class Head(CommonHead):
    """The common head, whose correction is scaled back by the deviation of the window where RevIN divided by it."""

    def correction(self, state: State) -> Tensor:
        y = super().correction(state)
        return y * state["scale"] if "scale" in state else y


class Network(_contract.Network):
    """Transformer over patches, channel-independent; with inputs `patch` (or `all`, mix `flat`) the head mixes the nodes."""

    title = "PatchTST"
    paper = "Nie et al., A time series is worth 64 words: long-term forecasting with transformers, ICLR 2023, arXiv:2211.14730"
    inputs: ClassVar[tuple[Inputs, ...]] = ("site", "patch", "all")
    presets: ClassVar = {
        "paper": {"width": 128, "heads": 16, "layers": 3, "feedforward": 256, "dropout": 0.2, "revin": "full", "residual": "none"}
    }

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        embed = Embed(seen, options, fold=fold)
        width = seen.nodes * len(embed.places) * options.width
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
