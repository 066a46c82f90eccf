"""Whole maps: what a network of patches says of every site of a grid, computed once instead of patch by patch.

Legend: B maps, T steps, R × C rows and columns of the grid, S = R · C sites, F features, K edge of the patch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from models._contract import Problem
from models._layers import patch
from models._layers.frame import Linear


def sites(x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """A map x (B, T, R, C, F) as rows of single sites (B · S, T, 1, F), and known repeated for each."""
    each = x.flatten(2, 3)
    rows = known.unsqueeze(1).expand(-1, each.shape[2], -1, -1).flatten(0, 1)
    return each.transpose(1, 2).flatten(0, 1).unsqueeze(2), rows


def together(y: Tensor, count: int) -> Tensor:
    """Rows of single sites (B · S, horizon, 1, targets, quantiles) as maps (B, horizon, S, targets, quantiles)."""
    return y.squeeze(2).unflatten(0, (-1, count)).transpose(1, 2)


def patches(x: Tensor, problem: Problem) -> Tensor:
    """The patch around every site, zeros outside of the grid: (B · S, T, K · K, F)."""
    side = patch.edge(problem)
    around = functional.pad(x, (0, 0, *(side // 2,) * 4)).unfold(2, side, 1).unfold(3, side, 1)  # (B, T, R, C, F, K, K)
    return around.permute(0, 2, 3, 1, 5, 6, 4).flatten(4, 5).flatten(0, 2)


def linear_base(base: Linear, x: Tensor) -> Tensor:
    """The learnt linear map of the patch around every site, as one convolution: (B · S, horizon, 1, targets, 1)."""
    problem, side = base.problem, patch.edge(base.problem)
    targets = len(problem.targets)
    weight = base.map.weight.unflatten(1, (problem.history, side, side, targets)).permute(0, 1, 4, 2, 3).flatten(1, 2)
    steps = x[..., :targets].permute(0, 1, 4, 2, 3).flatten(1, 2)
    y = functional.conv2d(steps, weight, base.map.bias, padding=side // 2)
    return y.flatten(2).transpose(1, 2).flatten(0, 1).unflatten(1, base.shape)
