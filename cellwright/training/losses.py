"""The losses that train, stop and compare; torch alone, so that a federated owner's process starts without the training loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from models._contract import Batch, Problem

_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mae": functional.l1_loss,
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,
}


def loss_sum(kind: str, forecast: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the loss over the measured targets, and how many there are. All (batch, horizon, outputs, targets)."""
    each = _LOSSES[kind](forecast.float(), target, reduction="none")
    return (each * mask).sum(), mask.sum()


def pinball_sum(levels: tuple[float, ...], forecast: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the pinball loss, averaged over the levels and summed over the measured targets, and how many there are.

    With e = target - forecast it is 2 · max(q · e, (q - 1) · e) at level q: at the median |e|, so that one level of 0.5 is the MAE.
    `forecast`: (batch, horizon, outputs, targets, levels); `target` and `mask` without the last dimension.
    Source: Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978).
    """
    level, error = forecast.new_tensor(levels, dtype=torch.float32), target.unsqueeze(-1) - forecast.float()
    each = 2 * torch.maximum(level * error, (level - 1) * error).mean(-1)
    return (each * mask).sum(), mask.sum()


def forecast_loss(kind: str, problem: Problem, forecast: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss that trains, stops and is compared: pinball over the problem's quantiles, else `kind` of the point forecast.

    `forecast` as a network answers it: (batch, horizon, outputs, targets, quantiles), normalised. Returns (sum, count).
    """
    if problem.quantiles:
        return pinball_sum(problem.quantiles, forecast, batch.y, batch.mask)
    return loss_sum(kind, forecast[..., 0], batch.y, batch.mask)
