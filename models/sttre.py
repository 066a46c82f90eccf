"""STTRE: three transformer encoders with relative embeddings, along time, across variables, and over both at once.

Deihim, Alonso and Apostolopoulou, STTRE: a spatio-temporal transformer with relative embeddings for multivariate time series
forecasting, Neural Networks 168, 2023. Built from the paper's description: the authors' notebook keeps the attention of the
future instead of the past, adds the relative term after the softmax, and feeds every layer the first layer's input.
Here a mask keeps time's direction in the temporal and the joint encoder (the spatial one sees a single step only), layer norm
replaces batch norm (exports and federates without running statistics), and the forecast corrects the last value. A variable is a
channel of a site or, in a patch larger than 3 × 3, of the centre or of a ring around it (the mean over its sites): each site its
own would make 726 tokens of 6 steps of 11 × 11. The preset `paper` keeps the rings.
Legend: B windows, T steps, M variables, D width of a token, N groups that never see each other, L tokens of a group, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.attention import check_heads
from models._layers.frame import RESIDUALS, Embed, Head, chain, mix_option, residual_option
from models._layers.patch import edge


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of STTRE."""

    width: int = option(16, "width of a token", low=2, high=1024)
    heads: int = option(4, "heads of the spatio-temporal encoder (the others have one a variable or step)", low=1, high=64)
    layers: int = option(1, "layers of each encoder", low=1, high=12)
    expansion: int = option(2, "how many times wider the feed-forward parts are", low=1, high=8)
    variables: str = option(
        "auto",
        "what a patch's variables are: its sites, or its rings (means by distance from the centre); auto: sites up to 3 × 3",
        choices=("auto", "sites", "rings"),
    )
    max_tokens: int = option(
        600,
        "most tokens (steps × variables) that the joint encoder compares each with each: at 600, four heads and 1,024 windows one "
        "table of scores takes 6 GB, and it grows with their square",
        low=1,
    )
    dropout: float = option(0.0, "share of activations dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")
    mix: str = mix_option("shared")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads)


def rings(side: int) -> Tensor:
    """Which ring each site of a patch belongs to (rings, side · side), 1 or 0; ring 0 is the centre."""
    away = (torch.arange(side) - side // 2).abs()
    ring = torch.maximum(away[:, None], away[None, :]).flatten()
    return (ring == torch.arange(int(ring.max()) + 1)[:, None]).float()


class Variables(nn.Module):
    """Encoder: x as variables (B, T, M), which are channels of sites or of rings; `valid` weighs the means and is left out."""

    members: Tensor

    def __init__(self, problem: Problem, how: str) -> None:
        super().__init__()
        self.valid = "valid" in problem.features
        self.channels = len(problem.features) - self.valid
        by_ring = how == "rings" or (how == "auto" and problem.nodes > 9)
        members = rings(edge(problem)) if problem.inputs == "patch" and by_ring else torch.eye(problem.nodes)
        self.register_buffer("members", members, persistent=False)
        self.count = len(members) * self.channels

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        values = x[..., : self.channels]
        if len(self.members) == x.shape[2]:
            return values.flatten(2)
        weight = x[..., -1:] if self.valid else torch.ones_like(x[..., :1])
        total, sites = self.members @ (values * weight), self.members @ weight
        return (total / sites.clamp_min(1.0)).flatten(2)


def skew(scores: Tensor) -> Tensor:
    """(…, L, L) whose column c belongs to keys c places before the query, modulo L, to (…, query, key).

    Music transformers' trick, made to go round: a row repeated is a row longer by one than the step to its next diagonal.
    """
    length = scores.shape[-1]
    ahead = torch.cat((scores[..., :1], scores[..., 1:].flip(-1)), -1)  # column c: keys c places after the query
    flat = torch.cat((ahead, ahead), -1).flatten(-2)[..., length:]
    return flat.unflatten(-1, (length, 2 * length - 1))[..., :length]


def attention(q: Tensor, k: Tensor, v: Tensor, relative: Tensor, hidden: Tensor | None) -> Tensor:
    """softmax((q k' + skew(q E')) / sqrt(width)) v over (…, L, width), with relative embeddings E (…, L, width).

    `hidden` (L, L) is true where a query must not see a key.
    """
    scores = (q @ k.transpose(-1, -2) + skew(q @ relative.transpose(-1, -2))) * q.shape[-1] ** -0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores.softmax(-1) @ v


class Grouped(nn.Module):
    """Attention within groups that share nothing, (N, B, L, D) to the same: each has its own maps and relative embeddings."""

    def __init__(self, groups: int, length: int, width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.maps = nn.Parameter(torch.empty(groups, width, 3 * width).uniform_(-bound, bound))
        self.relative = nn.Parameter(torch.randn(groups, 1, length, width) * 0.1)

    def forward(self, h: Tensor, hidden: Tensor | None) -> Tensor:
        mapped = torch.bmm(h.flatten(1, 2), self.maps).unflatten(1, (-1, h.shape[2]))
        q, k, v = mapped.chunk(3, 3)
        return attention(q, k, v, self.relative, hidden)


class Joint(nn.Module):
    """Attention over all tokens (1, B, L, D) to the same, each head on its part of the width; heads share their maps."""

    def __init__(self, heads: int, length: int, width: int) -> None:
        super().__init__()
        self.heads, part = heads, width // heads
        self.maps = nn.Linear(part, 3 * part, bias=False)
        self.relative = nn.Parameter(torch.randn(length, part) * 0.1)

    def forward(self, h: Tensor, hidden: Tensor | None) -> Tensor:
        q, k, v = self.maps(h.unflatten(3, (self.heads, -1)).transpose(2, 3)).chunk(3, 4)
        return attention(q, k, v, self.relative, hidden).transpose(2, 3).flatten(3)


class Layer(nn.Module):
    """Attention, then a feed-forward part, each added to what it read and normalised."""

    def __init__(self, attend: nn.Module, options: Options) -> None:
        super().__init__()
        width, wide = options.width, options.expansion * options.width
        self.attend, self.out = attend, nn.Linear(width, width)
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, wide), nn.LeakyReLU(), nn.Linear(wide, width), nn.Dropout(options.dropout))

    def forward(self, h: Tensor, hidden: Tensor | None) -> Tensor:
        h = self.norm(h + self.out(self.attend(h, hidden)))
        return self.feed_norm(h + self.feed(h))


class Encoder(nn.Module):
    """Layers over tokens (N, B, L, D), with an embedding of their place added first."""

    hidden: Tensor | None

    def __init__(self, layers: list[Layer], places: Tensor, hidden: Tensor | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.places = nn.Parameter(places)
        self.register_buffer("hidden", hidden, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.places
        for layer in self.layers:
            h = layer(h, self.hidden)
        return h


class Core(nn.Module):
    """h (B, T, M) to one number a token and encoder, (B, 3 · T · M)."""

    def __init__(self, steps: int, variables: int, options: Options) -> None:
        super().__init__()
        self.steps, self.variables, width = steps, variables, options.width
        self.element = nn.Linear(1, width)
        self.drop = nn.Dropout(options.dropout)
        time = torch.arange(steps)
        moment = time.repeat_interleave(variables)  # of each token of the joint encoder: all variables of a step lie together
        by_step = torch.randn(steps, width) * 0.1

        def layers(attend: Any) -> list[Layer]:
            return [Layer(attend(), options) for _ in range(options.layers)]

        self.temporal = Encoder(layers(lambda: Grouped(variables, steps, width)), by_step, time[None] > time[:, None])
        self.spatial = Encoder(layers(lambda: Grouped(steps, variables, width)), torch.randn(variables, width) * 0.1, None)
        joint = layers(lambda: Joint(options.heads, steps * variables, width))
        self.joint = Encoder(joint, by_step[moment], moment[None] > moment[:, None])
        self.reduce = nn.Sequential(nn.Linear(width, width // 2), nn.LeakyReLU(), nn.Linear(width // 2, 1), nn.LeakyReLU())

    def sequence(self, state: State) -> Tensor:
        """(B, T, 3 · M): step t has seen no later step."""
        tokens = self.drop(self.element(state["h"].unsqueeze(3)))  # (B, T, M, D)
        temporal = self.temporal(tokens.permute(2, 0, 1, 3)).permute(1, 2, 0, 3)
        spatial = self.spatial(tokens.transpose(0, 1)).transpose(0, 1)
        joint = self.joint(tokens.flatten(1, 2).unsqueeze(0)).squeeze(0).unflatten(1, (self.steps, self.variables))
        return self.reduce(torch.cat((temporal, spatial, joint), 2)).squeeze(3)

    def forward(self, state: State) -> State:
        return {**state, "h": self.sequence(state).flatten(1)}


def _check_tokens(steps: int, variables: int, most: int) -> None:
    if (tokens := steps * variables) > most:
        raise ValueError(
            f"STTRE compares each of {tokens} tokens ({steps} steps × {variables} variables) with each, at most {most} by its option "
            "max_tokens; shorten problem.history, take inputs 'site' or variables 'rings', or raise max_tokens and lower train.batch"
        )


class Network(_contract.Network):
    """Temporal, spatial and spatio-temporal attention over single values, and a linear head on what remains of each.

    Raises:
        ValueError: more tokens than `max_tokens`.
    """

    title = "STTRE"
    paper = "Deihim et al., STTRE: a spatio-temporal transformer with relative embeddings, Neural Networks 168, 2023"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    causal = True
    presets: ClassVar = {"paper": {"width": 32, "layers": 3, "expansion": 1, "dropout": 0.1, "residual": "none"}}

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        variables = Variables(seen, options.variables)
        _check_tokens(seen.history, variables.count, options.max_tokens)
        width = 3 * seen.history * variables.count
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(seen, variables, residual=options.residual, fold=fold))
        self.blocks.add_module("core", Core(seen.history, variables.count, options))
        self.blocks.add_module("head", Head(seen, width, residual=options.residual, sites=sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "width": trial.suggest_categorical("width", (8, 16, 32)),
            "layers": trial.suggest_int("layers", 1, 3),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
