"""The Mamba block, and the selective state space model inside it, for the networks that are made of them.

Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, arXiv:2312.00752, section 3.4 and figure 3.

Legend: R rows, T steps, G positions that do not meet, W width, D channels (expansion · W), N states.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models._layers.scan import selective_scan

DELTAS = (1e-3, 1e-1)  # of the paper: the step sizes that the channels begin with lie between, evenly in their logarithm


class Selective(nn.Module):
    """u (R, T, G, D) to y of the same shape, with step size, input and output matrix drawn from u itself.

    `directions` > 1 gives each of as many groups weights of its own (G = directions); 1 shares them between all. Where there is a
    single step (`steps` = 1) no state lives on, and how fast it decays is nothing to learn.
    """

    def __init__(self, channels: int, state: int, rank: int, directions: int = 1, steps: int | None = None) -> None:
        super().__init__()
        self.sizes = [rank, state, state]
        spread, grow = channels**-0.5, rank**-0.5
        self.select = nn.Parameter(torch.empty(directions, channels, rank + 2 * state).uniform_(-spread, spread))
        self.delta = nn.Parameter(torch.empty(directions, rank, channels).uniform_(-grow, grow))
        low, high = (math.log(d) for d in DELTAS)
        first = torch.empty(directions, channels).uniform_(low, high).exp()
        self.delta_bias = nn.Parameter(first + torch.log(-torch.expm1(-first)))  # softplus gives `first` back
        rates = torch.arange(1.0, state + 1)[None, :, None].expand(directions, -1, channels)
        if steps == 1:
            self.register_buffer("log_rates", rates.log().contiguous(), persistent=False)
        else:
            self.log_rates = nn.Parameter(rates.log().contiguous())
        self.skip = nn.Parameter(torch.ones(directions, channels))

    def forward(self, u: Tensor) -> Tensor:
        raw, b, c = _each(u, self.select).split(self.sizes, -1)
        delta = functional.softplus(_each(raw, self.delta) + self.delta_bias)
        return torch.addcmul(selective_scan(u, delta, -self.log_rates.exp(), b, c), u, self.skip)


def _each(u: Tensor, weight_GDE: Tensor) -> Tensor:
    """u (R, T, G, D) times the weight of its group, or the one weight of all."""
    if len(weight_GDE) == 1:
        return torch.matmul(u, weight_GDE[0])
    return torch.einsum("rtgd,gde->rtge", u, weight_GDE)


class Mamba(nn.Module):
    """h (R, T, G, W) to the same shape: a gated selective scan along the steps, each position alone; sees no later step."""

    def __init__(self, width: int, *, state: int = 16, expansion: int = 2, kernel: int = 4) -> None:
        super().__init__()
        channels = expansion * width
        self.enter = nn.Linear(width, 2 * channels, bias=False)
        self.conv = nn.Conv2d(channels, channels, (kernel, 1), groups=channels)
        self.selective = Selective(channels, state, rank=math.ceil(width / 16))
        self.leave = nn.Linear(channels, width, bias=False)
        self.past = kernel - 1

    def forward(self, h: Tensor) -> Tensor:
        u, gate = self.enter(h).chunk(2, -1)
        images = functional.pad(u.permute(0, 3, 1, 2), (0, 0, self.past, 0))  # (R, D, T, G), channels last in memory
        u = functional.silu(self.conv(images)).permute(0, 2, 3, 1)
        return self.leave(self.selective(u) * functional.silu(gate))
