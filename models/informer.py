"""Informer: an encoder-decoder transformer whose attention serves only the queries that stand out.

Zhou et al., Informer: beyond efficient transformer for long sequence time-series forecasting, AAAI 2021, arXiv:2012.07436.
Here the sampled keys are drawn once and kept as buffers (the paper: anew at each call), so that a forecast repeats and exports;
layer norm replaces batch norm and comes first, positions are learnt, and the forecast corrects the last value (`residual`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.attention import CrossLayer, Full, Layer, check_heads
from models._layers.frame import RESIDUALS, Embed, Head, chain, mix_option, residual_option
from models._layers.seq2seq import Tokens, start_option, start_steps


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of the Informer."""

    width: int = option(32, "width of a token", low=2, high=1024)
    heads: int = option(2, "attention heads; divides the width", low=1, high=64)
    layers: int = option(2, "encoder layers, each but the last followed by distilling", low=1, high=8)
    decoder_layers: int = option(1, "decoder layers", low=1, high=8)
    feedforward: int = option(64, "width of the feed-forward part", low=1, high=8192)
    factor: int = option(5, "sampled keys and attending queries of n steps: factor · ⌈ln n⌉, at most n", low=1, high=100)
    distil: bool = option(True, "whether the encoder halves its steps after each layer but the last")
    start: int = start_option()
    dropout: float = option(0.05, "share of activations dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")
    mix: str = mix_option("flat")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)


def chosen(steps: int, factor: int) -> int:
    """How many of `steps` are sampled as keys, and attend as queries."""
    return min(steps, factor * math.ceil(math.log(steps))) if steps > 1 else 1


class ProbSparse(nn.Module):
    """Attention of the queries whose scores on sampled keys stand out most (max less mean); the others see the mean value.

    With `causal` no query sees a later step: the others see the mean of the values so far (the paper: their sum, which
    grows along the window).
    """

    sample: Tensor  # (steps, sampled): for each query the keys that it is judged by

    def __init__(self, steps: int, factor: int, *, causal: bool = False) -> None:
        super().__init__()
        self.causal, self.attending = causal, chosen(steps, factor)
        self.register_buffer("sample", torch.rand(steps, steps).argsort(1)[:, : self.attending].contiguous())
        self.register_buffer("order", torch.arange(steps), persistent=False)

    order: Tensor

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(rows, heads, steps, width of a head) to the same."""
        top = self.prominence(q, k).topk(self.attending, -1).indices.unsqueeze(-1)
        each = top.expand(-1, -1, -1, q.shape[-1])
        scores = q.gather(2, each) @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.causal:
            scores = scores.masked_fill(self.order > top, -torch.inf)
        seen = self._unattended(v)
        return seen.scatter(2, each, (scores.softmax(-1) @ v).to(seen.dtype))  # autocast leaves sums and products unlike

    def prominence(self, q: Tensor, k: Tensor) -> Tensor:
        """(rows, heads, steps): how far a query's attention is from an even one, judged by its sampled keys."""
        steps, sampled = self.sample.shape
        if sampled * q.shape[-1] < steps:  # gathering the keys moves fewer numbers than all scores are
            scores = (q.unsqueeze(3) * k[:, :, self.sample]).sum(-1)
        else:
            scores = (q @ k.transpose(-1, -2)).gather(-1, self.sample.expand(*q.shape[:2], -1, -1))
        return scores.amax(-1) - scores.mean(-1)

    def _unattended(self, v: Tensor) -> Tensor:
        if self.causal:
            return v.cumsum(2) / (self.order + 1).unsqueeze(-1)
        return v.mean(2, keepdim=True).expand_as(v)


def sparse(steps: int, options: Options, *, causal: bool = False) -> nn.Module:
    """ProbSparse attention, or full attention where every query would attend anyway: they are the same then."""
    if chosen(steps, options.factor) >= steps:
        return Full(causal=causal)
    return ProbSparse(steps, options.factor, causal=causal)


class Distil(nn.Module):
    """Convolution over three steps, norm, ELU and max pooling: half as many steps (rounded up)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Sequential(nn.ELU(), nn.MaxPool1d(3, 2, 1))

    def forward(self, h: Tensor) -> Tensor:
        """(rows, steps, width) to (rows, ⌈steps / 2⌉, width)."""
        mixed = self.norm(self.convolution(h.transpose(1, 2)).transpose(1, 2))
        return self.pool(mixed.transpose(1, 2)).transpose(1, 2)


def encoder(steps: int, o: Options) -> nn.Sequential:
    """The encoder's layers, distilling between them."""
    parts: list[nn.Module] = []
    for number in range(o.layers):
        parts.append(Layer(o.width, o.heads, o.feedforward, o.dropout, sparse(steps, o)))
        if o.distil and number < o.layers - 1:
            parts.append(Distil(o.width))
            steps = math.ceil(steps / 2)
    return nn.Sequential(*parts, nn.LayerNorm(o.width))


class Core(nn.Module):
    """h (batch, history + start + horizon, width) to the decoder's target steps, flat: (batch, horizon · width)."""

    def __init__(self, problem: Problem, o: Options) -> None:
        super().__init__()
        self.history, self.horizon = problem.history, problem.horizon
        asked = start_steps(problem.history, o.start) + problem.horizon
        self.encoder = encoder(problem.history, o)
        self.decoder = nn.ModuleList(
            CrossLayer(o.width, o.heads, o.feedforward, o.dropout, own=sparse(asked, o, causal=True), cross=Full())
            for _ in range(o.decoder_layers)
        )
        self.norm = nn.LayerNorm(o.width)

    def forward(self, state: State) -> State:
        encoded = self.encoder(state["h"][:, : self.history])
        h = state["h"][:, self.history :]
        for layer in self.decoder:
            h = layer(h, encoded)
        return {**state, "h": self.norm(h[:, -self.horizon :]).flatten(1)}


class Network(_contract.Network):
    """ProbSparse encoder-decoder; the decoder answers all target steps in one pass."""

    title = "Informer"
    paper = "Zhou et al., Informer: beyond efficient transformer for long sequence forecasting, AAAI 2021, arXiv:2012.07436"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    presets: ClassVar = {
        "paper": {"width": 512, "heads": 8, "layers": 3, "decoder_layers": 2, "feedforward": 2048, "residual": "none"}
    }

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
            "factor": trial.suggest_int("factor", 1, 5),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
