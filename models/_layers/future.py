"""What is known of each target step: its calendar and its lag values, step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models._contract import Problem
from models._layers import views


class Future(nn.Module):
    """(batch, horizon, width): calendar first, then one part a lag; 0 where x does not reach the lag value (short histories)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.missing = problem.horizon - views.lag_steps(problem)
        self.width = len(problem.known) + len(problem.lags) * problem.outputs * len(problem.targets)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        parts = [known[:, self.problem.history :]] if self.problem.known else []
        for lag in self.problem.lags:
            values = views.lag_values(x, self.problem, lag).flatten(2)
            parts.append(functional.pad(values, (0, 0, self.missing, 0)) if self.missing else values)
        return torch.cat(parts, 2)
