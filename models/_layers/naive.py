"""Blocks of the forecasts that have nothing to learn."""

from __future__ import annotations

from torch import nn

from models._contract import Problem, State


class Keep(nn.Module):
    """A core that computes nothing: the state goes on as it came."""

    def forward(self, state: State) -> State:
        return state


class Repeat(nn.Module):
    """h (batch, 1 or horizon, outputs, targets), repeated over the horizon and the quantiles."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.horizon, self.quantiles = problem.horizon, problem.out_quantiles

    def forward(self, state: State) -> State:
        return {"y": state["h"].unsqueeze(-1).expand(-1, self.horizon, -1, -1, self.quantiles)}
