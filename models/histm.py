"""HiSTM: convolutions over the neighbourhood and Mamba along time, layer by layer; attention over the centre's steps.

Bettouche et al., HiSTM: hierarchical spatiotemporal Mamba for cellular traffic forecasting, 2025: a reimplementation from the
paper's text, as its sizes are not published. Here calendar and lag values join the attended features before the two-layer head,
the head starts from a linear map of the patch (option `residual`), and each Mamba has a norm before it and a skip around it. The
default is small enough to learn in half a minute of one core; preset `paper` has the size that the paper reports.
Only what the centre can see is computed: the last layer at the centre, the one before at 3 × 3 positions. That is exact.

Legend: B windows, T steps, F features, K edge of the patch, R × C rows and columns of a map, W width.
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
from models._layers import maps, patch, views
from models._layers.frame import RESIDUALS, Context, Embed, Linear, finished, residual_option
from models._layers.mamba import Mamba


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of HiSTM."""

    width: int = option(16, "channels of each layer", low=1, high=1024)
    layers: int = option(2, "encoder layers: a convolution over the neighbourhood, then Mamba along time", low=1, high=8)
    kernel: int = option(3, "edge of the convolutions, odd", low=1, high=11)
    state: int = option(4, "states of a channel of Mamba", low=1, high=256)
    expansion: int = option(1, "channels of Mamba for each of the width", low=1, high=8)
    hidden: int = option(64, "width of the head's hidden layer", low=1, high=4096)
    dropout: float = option(0.0, "share of the head's hidden layer dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("linear")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that a convolution has a centre; found {self.kernel}")


class Frames(nn.Module):
    """The frames (B, T, F, side, side) of which the centre's forecast can see anything."""

    def __init__(self, problem: Problem, side: int) -> None:
        super().__init__()
        self.problem, self.side = problem, min(side, patch.edge(problem))

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        return patch.crop(patch.frames(x, self.problem), self.side)


class Layer(nn.Module):
    """A convolution of each step, then Mamba along the steps of each position: images (B, T, F, r, c) lose the kernel's rim."""

    def __init__(self, features: int, options: Options) -> None:
        super().__init__()
        o = options
        self.conv = nn.Conv2d(features, o.width, o.kernel)
        self.norm = nn.LayerNorm(o.width)
        self.mamba = Mamba(o.width, state=o.state, expansion=o.expansion)

    def forward(self, images: Tensor) -> Tensor:
        seen = functional.relu(self.conv(images.flatten(0, 1))).permute(0, 2, 3, 1)  # (B · T, r, c, W)
        h = seen.flatten(1, 2).unflatten(0, images.shape[:2])
        h = h + self.mamba(self.norm(h))
        return h.unflatten(2, seen.shape[1:3]).permute(0, 1, 4, 2, 3)


class Attention(nn.Module):
    """Softmax over the steps of a learnt score: (B, T, W) to (B, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, h: Tensor) -> Tensor:
        return (self.score(h).softmax(1) * h).sum(1)


class Core(nn.Module):
    """The encoder layers, then attention: h (B, T, F, side, side) to (B, W).

    It holds nearly all operations; a layer's scan needs all steps of its convolution, so a cut could only lie between layers.
    """

    def __init__(self, features: int, edge: int, options: Options) -> None:
        super().__init__()
        widths = [features] + [options.width] * options.layers
        self.layers = nn.ModuleList(Layer(width, options) for width in widths[:-1])
        self.attention = Attention(options.width)
        rim = options.kernel - 1
        self.sides = [rim + min(edge, 1 + rim * after) for after in reversed(range(options.layers))]

    def sequence(self, state: State) -> Tensor:
        """(B, T, W) of the centre: step t has seen no later step."""
        h = state["h"]
        for layer, side in zip(self.layers, self.sides, strict=True):
            h = layer(patch.crop(h, side) if h.shape[-1] > side else patch.padded(h, side))
        return patch.centre(h)

    def whole(self, images: Tensor) -> Tensor:
        """`sequence` of every position of a map whose rim the layers take away: (B, T, F, ...) to (B, T, W, R, C)."""
        for layer in self.layers:
            images = layer(images)
        return images

    def forward(self, state: State) -> State:
        return {**state, "h": self.attention(self.sequence(state))}


class Head(nn.Module):
    """Two layers on the attended features and the context; adds the base."""

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__()
        self.shape = (problem.horizon, problem.outputs, len(problem.targets), problem.out_quantiles)
        self.enter = nn.Linear(options.width + Context(problem).width, options.hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.leave = nn.Linear(options.hidden, math.prod(self.shape))
        if options.residual != "none":  # start close to the base
            with torch.no_grad():
                self.leave.weight.mul_(0.1)
                self.leave.bias.zero_()

    def forward(self, state: State) -> State:
        h = torch.cat((state["h"], state["context"]), 1) if "context" in state else state["h"]
        y = self.leave(self.dropout(functional.relu(self.enter(h))))
        return finished(y.unflatten(1, self.shape), state, 0)


class Network(_contract.Network):
    """Convolutions and Mamba by turns over a patch, or over a single site as a patch of one."""

    title = "HiSTM"
    paper = "Bettouche et al., HiSTM: hierarchical spatiotemporal Mamba for cellular traffic forecasting, arXiv:2508.09184"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site")
    presets: ClassVar = {"paper": {"width": 32, "state": 16, "expansion": 2, "hidden": 128, "residual": "none"}}
    causal = True
    maps = True

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        self.reach = 1 + options.layers * (options.kernel - 1)  # edge of what the centre sees
        frames = Frames(problem, self.reach)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(problem, frames, residual=options.residual))
        self.blocks.add_module("core", Core(len(problem.features), patch.edge(problem), options))
        self.blocks.add_module("head", Head(problem, options))

    def forward_map(self, x: Tensor, known: Tensor) -> Tensor:
        """Each layer runs once at every position of the grid.

        Patches smaller than what the layers see are computed one by one: their border is not that of the grid.
        """
        count = x.shape[2] * x.shape[3]
        if patch.edge(self.problem) < self.reach:
            rows = known.unsqueeze(1).expand(-1, count, -1, -1).flatten(0, 1)
            return maps.together(self(maps.patches(x, self.problem), rows), count)
        images = functional.pad(x.permute(0, 1, 4, 2, 3), (self.reach // 2,) * 4)
        h = self.blocks.core.whole(images).flatten(3).permute(0, 3, 1, 2).flatten(0, 1)  # (B · S, T, W)
        state = {"h": self.blocks.core.attention(h), **self._beside(x, known)}
        return maps.together(self.blocks.head(state)["y"], count)

    def _beside(self, x: Tensor, known: Tensor) -> State:
        """Context and base of every site of a map."""
        embed, alone = self.blocks.embed, views.per_site(self.problem)
        single, rows = maps.sites(x, known)
        out: State = {"context": Context(alone)(single, rows)} if embed.context.width else {}
        if isinstance(embed.base, Linear):
            out["base"] = maps.linear_base(embed.base, x)
        elif embed.base is not None:
            out["base"] = views.last_value(single, alone).unsqueeze(-1)
        return out

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "width": trial.suggest_categorical("width", (16, 32, 64)),
            "layers": trial.suggest_int("layers", 1, 3),
            "state": trial.suggest_categorical("state", (4, 8, 16)),
            "hidden": trial.suggest_categorical("hidden", (64, 128, 256)),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
