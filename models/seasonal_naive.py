"""Seasonal naive: every future step is what was measured one season earlier (a day, "same time yesterday").

Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed. (2021), section 5.2.
The season is one day by the problem's cadence; a quantile forecast repeats the value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from models import _contract
from models._contract import Batch, Inputs, Problem, State
from models._layers import views
from models._layers.naive import Keep, Repeat


@dataclass(frozen=True)
class Options(_contract.Options):
    """There is nothing to choose."""


class Embed(nn.Module):
    """Picks the values one season before the target steps: h (batch, horizon, outputs, targets)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, state: State) -> State:
        return {"h": views.lag_values(state["x"], self.problem, self.problem.season)}


class Network(_contract.Network):
    """Values of one season ago. It has no parameters.

    Raises:
        ValueError: a lag of one season is missing, or the horizon is longer than the history or the season.
    """

    title = "Seasonal naive"
    paper = "Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., OTexts 2021, section 5.2"
    inputs: ClassVar[tuple[Inputs, ...]] = ("all", "site", "patch")
    uses_known = False
    uses_features = False
    closed_form = True

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        _check(problem)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(problem))
        self.blocks.add_module("core", Keep())
        self.blocks.add_module("head", Repeat(problem))

    @classmethod
    def lags(cls, problem: Problem) -> tuple[int, ...]:
        """One season, whatever lags the other networks see."""
        return (problem.season,)

    def fit_closed_form(self, batches: Iterable[Batch]) -> None:
        """Nothing is fitted: the batches are not even read."""


def _check(problem: Problem) -> None:
    if problem.season not in problem.lags:
        raise ValueError(f"seasonal naive needs a lag of {problem.season} steps (one season), found {problem.lags}")
    if problem.horizon > problem.history:
        raise ValueError(
            f"seasonal naive reads a season ago beside the history: horizon {problem.horizon} is longer than "
            f"history {problem.history}; lengthen problem.history or leave this model out"
        )
    if problem.horizon > problem.season:
        raise ValueError(f"horizon {problem.horizon} reaches past one season of {problem.season} steps; shorten it")
