"""The moving average that splits a series into trend and remainder (Autoformer, DLinear)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def averaging(history: int, kernel: int) -> Tensor:
    """Matrix (history, history) of the centred moving average whose ends repeat the first and the last step."""
    size = min(kernel, history)
    offsets = torch.arange(size) - (size - 1) // 2
    places = (torch.arange(history)[:, None] + offsets).clamp(0, history - 1)
    return functional.one_hot(places, history).sum(1) / size
