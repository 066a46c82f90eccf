"""Autoformer: an encoder-decoder that splits off trends as it goes, and attends to delays instead of steps.

Wu et al., Autoformer: decomposition transformers with auto-correlation for long-term series forecasting, NeurIPS 2021.
Here correlations come from one product of all steps (the paper: by FFT; histories are short, and it exports), each head of each
window picks its own delays (the authors' code: one set for all heads, in training for the whole batch), steps get learnt positions
(delays are circular: nothing else tells the newest of six), keys and values are cut to the newest steps (paper: the first), the
decoder starts from whole values (paper: their seasonal part, which hides their level from it), its trends repeat their ends where
they are projected (the authors' code goes round), and the trend starts from a linear map of the history (`residual`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers import frame, views
from models._layers.attention import Heads, check_heads, feedforward
from models._layers.decomposition import averaging
from models._layers.frame import chain, mix_option
from models._layers.seq2seq import Tokens, start_option, start_steps


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of the Autoformer."""

    width: int = option(32, "width of a step", low=2, high=1024)
    heads: int = option(2, "heads of the auto-correlation; divides the width", low=1, high=64)
    layers: int = option(2, "encoder layers", low=1, high=8)
    decoder_layers: int = option(1, "decoder layers", low=1, high=8)
    feedforward: int = option(64, "width of the feed-forward part", low=1, high=8192)
    factor: float = option(3.0, "delays kept of n: factor · ln n, at least two", low=0.1, high=100)
    kernel: int = option(25, "steps of the moving average; at most the sequence", low=1)
    start: int = start_option()
    dropout: float = option(0.05, "share of activations dropped in training", low=0.0, high=0.9)
    residual: str = option(
        "linear",
        "what the trend of the target steps starts from: the history's mean (the paper), its last value, a linear map of it",
        choices=("mean", "last", "linear"),
    )
    mix: str = mix_option("flat")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)


class Average(nn.Module):
    """The trend of a sequence (rows, steps, width): a moving average whose ends repeat the first and the last step."""

    matrix: Tensor

    def __init__(self, steps: int, kernel: int) -> None:
        super().__init__()
        self.register_buffer("matrix", averaging(steps, kernel), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.matrix @ h


class Seasonal(nn.Module):
    """What is left of a sequence when its trend is taken off."""

    def __init__(self, steps: int, kernel: int) -> None:
        super().__init__()
        self.average = Average(steps, kernel)

    def forward(self, h: Tensor) -> Tensor:
        return h - self.average(h)


def correlation(q: Tensor, k: Tensor) -> Tensor:
    """Sum over steps i of q_i · k_(i + shift), for each circular shift: (…, steps, d) twice to (…, steps).

    The paper correlates with k_(i - delay), yet rolls the values to i + delay; here keys and values are shifted the same way.

    A row of q kᵀ, doubled, read in rows one longer, moves its diagonals into columns: only views, no gather.
    """
    steps = q.shape[-2]
    pairs = q @ k.transpose(-1, -2)
    doubled = functional.pad(torch.cat((pairs, pairs), -1).flatten(-2), (0, steps))
    return doubled.unflatten(-1, (steps, 2 * steps + 1))[..., :steps].sum(-2)


def circulant(weights: Tensor) -> Tensor:
    """(…, steps) to the matrix (…, steps, steps) whose row i holds weight s at column i + s, circularly."""
    steps = weights.shape[-1]
    repeated = weights.unsqueeze(-2).expand(*weights.shape[:-1], 2 * steps - 1, steps).flatten(-2)
    return repeated.unflatten(-1, (steps, 2 * steps - 1))[..., :steps]


class AutoCorrelation(nn.Module):
    """Values shifted by the delays at which queries and keys agree most, weighed by the softmax of how far they agree.

    Sums over steps and width are divided by √(steps · width), so that unrelated sequences correlate with variance one.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def kept(self, steps: int) -> int:
        """How many delays are kept of `steps`; one alone would leave queries and keys nothing to learn."""
        return min(steps, max(2, int(self.factor * math.log(steps)))) if steps > 1 else 1

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(rows, heads, steps, width of a head) to the same; k and v are brought to the steps of q."""
        steps = q.shape[2]
        k, v = (self._resized(part, steps) for part in (k, v))
        agree = correlation(q, k) / math.sqrt(steps * q.shape[-1])
        kept = self.kept(steps)
        if kept < steps:
            agree = agree.masked_fill(agree < agree.topk(kept, -1).values[..., -1:], -torch.inf)
        return circulant(agree.softmax(-1)) @ v

    @staticmethod
    def _resized(part: Tensor, steps: int) -> Tensor:
        """The newest `steps`, or zeros after them where there are fewer (the decoder reaches past the history)."""
        return functional.pad(part[:, :, -steps:], (0, 0, 0, max(0, steps - part.shape[2])))


class SeasonalNorm(nn.Module):
    """Layer norm less its mean over the steps: a seasonal part has no level (nor the norm a bias)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        normal = self.norm(h)
        return normal - normal.mean(1, keepdim=True)


def heads(o: Options) -> Heads:
    """Auto-correlation between heads; what a query's bias adds is the same for all delays."""
    return Heads(o.width, o.heads, AutoCorrelation(o.factor), query_bias=False)


class Layer(nn.Module):
    """Encoder layer: auto-correlation, then feed-forward; after each only the seasonal part goes on."""

    def __init__(self, steps: int, o: Options) -> None:
        super().__init__()
        self.heads, self.drop = heads(o), nn.Dropout(o.dropout)
        self.feed = feedforward(o.width, o.feedforward, o.dropout, bias=False)
        self.seasonal = Seasonal(steps, o.kernel)

    def forward(self, h: Tensor) -> Tensor:
        """(rows, steps, width) to the same."""
        h = self.seasonal(h + self.drop(self.heads(h, h)))
        return self.seasonal(h + self.feed(h))


class DecoderLayer(nn.Module):
    """Decoder layer: three parts, each of which gives up its trend; their sum is the layer's share of the forecast's trend."""

    def __init__(self, steps: int, o: Options) -> None:
        super().__init__()
        self.own, self.cross, self.drop = heads(o), heads(o), nn.Dropout(o.dropout)
        self.feed = feedforward(o.width, o.feedforward, o.dropout, bias=False)
        self.average = Average(steps, o.kernel)

    def forward(self, h: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Seasonal part and trend, both (rows, steps, width)."""
        h, trend = self._split(h + self.drop(self.own(h, h)))
        h, more = self._split(h + self.drop(self.cross(h, encoded)))
        trend = trend + more
        h, more = self._split(h + self.feed(h))
        return h, trend + more

    def _split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        trend = self.average(h)
        return h - trend, trend


class Core(nn.Module):
    """h (batch, history + start + horizon, width) to the target steps' seasonal part (batch, horizon · width) and `trend`.

    `trend` (batch, horizon, outputs · targets · quantiles) is what the decoder's layers add to the base.
    """

    def __init__(self, problem: Problem, o: Options) -> None:
        super().__init__()
        self.history, self.horizon = problem.history, problem.horizon
        asked = start_steps(problem.history, o.start) + problem.horizon
        self.encoder = nn.Sequential(*(Layer(problem.history, o) for _ in range(o.layers)), SeasonalNorm(o.width))
        self.decoder = nn.ModuleList(DecoderLayer(asked, o) for _ in range(o.decoder_layers))
        self.norm = SeasonalNorm(o.width)
        values = problem.outputs * len(problem.targets) * problem.out_quantiles
        self.trends = nn.ModuleList(nn.Conv1d(o.width, values, 3, bias=False) for _ in range(o.decoder_layers))

    def forward(self, state: State) -> State:
        encoded = self.encoder(state["h"][:, : self.history])
        h, total = state["h"][:, self.history :], None
        for layer, project in zip(self.decoder, self.trends, strict=True):
            h, trend = layer(h, encoded)
            around = functional.pad(trend[:, -self.horizon :].transpose(1, 2), (1, 1), mode="replicate")
            added = project(around).transpose(1, 2)
            total = added if total is None else total + added
        assert total is not None  # there is at least one layer
        return {**state, "h": self.norm(h)[:, -self.horizon :].flatten(1), "trend": total}


class Mean(nn.Module):
    """The mean of the history, for every target step: (batch, 1, outputs, targets, 1)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, x: Tensor) -> Tensor:
        own = x[:, :, views.outputs(self.problem), : len(self.problem.targets)]
        return own.mean(1, keepdim=True).unsqueeze(-1)


class Embed(frame.Embed):
    """The common first block, whose base may also be the mean of the history."""

    def __init__(self, problem: Problem, encoder: nn.Module, *, residual: str, fold: bool) -> None:
        super().__init__(problem, encoder, residual="none" if residual == "mean" else residual, fold=fold)
        if residual == "mean":
            self.base = Mean(problem)


class Head(frame.Head):
    """The common head for the seasonal part, to which the trend is added."""

    def correction(self, state: State) -> Tensor:
        return super().correction(state) + state["trend"].unflatten(2, self.shape[1:])


class Network(_contract.Network):
    """Decomposition transformer with auto-correlation."""

    title = "Autoformer"
    paper = "Wu et al., Autoformer: decomposition transformers with auto-correlation, NeurIPS 2021, arXiv:2106.13008"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    presets: ClassVar = {"paper": {"width": 512, "heads": 8, "feedforward": 2048, "residual": "mean"}}

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        tokens = Tokens(seen, options.width, start_steps(seen.history, options.start))
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(seen, tokens, residual=options.residual, fold=fold))
        self.blocks.add_module("core", Core(seen, options))
        self.blocks.add_module("head", Head(seen, seen.horizon * options.width, residual=options.residual, sites=sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "width": trial.suggest_categorical("width", (32, 64)),
            "layers": trial.suggest_int("layers", 1, 3),
            "factor": trial.suggest_float("factor", 1.0, 3.0),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", ("mean", "last", "linear")),
        }
