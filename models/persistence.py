"""Persistence: every future step is the last value.

No paper: the oldest reference forecast. A quantile forecast repeats the value, since nothing is known of its spread.
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
    """Picks the last value of the forecast sites: h (batch, 1, outputs, targets)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, state: State) -> State:
        return {"h": views.last_value(state["x"], self.problem)}


class Network(_contract.Network):
    """Last value, repeated. It has no parameters."""

    title = "Persistence"
    paper = ""
    inputs: ClassVar[tuple[Inputs, ...]] = ("all", "site", "patch")
    uses_known = False
    uses_lags = False
    uses_features = False
    closed_form = True

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(problem))
        self.blocks.add_module("core", Keep())
        self.blocks.add_module("head", Repeat(problem))

    def fit_closed_form(self, batches: Iterable[Batch]) -> None:
        """Nothing is fitted: the batches are not even read."""
