"""A model of one's own, as short as one can be: the level of the last steps, and a linear map of what differs from it.

Name this file in params.yaml and it is trained, searched, scored, exported and registered like any model of the zoo:

    train:
      models: [ridge, gru, examples/my_model.py, examples/my_model.py:slow]
      settings:
        examples/my_model.py: { options: { smoothing: 6 }, learning_rate: 0.003 }

The file is run as a part of the program: name only files that you trust.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Problem, State, Trial, option


@dataclass(frozen=True)
class Options(_contract.Options):
    """What can be set in `train.settings`, each with a default, a description and, where it helps, a range."""

    smoothing: int = option(3, "steps of the average", low=1, high=64)


class Embed(nn.Module):
    """First block: gets x (batch, history, nodes, features) and known (batch, history + horizon, calendar)."""

    def __init__(self, problem: Problem, smoothing: int) -> None:
        super().__init__()
        self.steps, self.targets = min(smoothing, problem.history), len(problem.targets)
        self.seen = slice(0, problem.nodes) if problem.inputs != "patch" else slice(problem.nodes // 2, problem.nodes // 2 + 1)

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        level = x[:, -self.steps :, :, : self.targets].mean(1, keepdim=True)
        flat = x.flatten(1)
        return {"h": torch.cat((flat, known.flatten(1)), 1), "level": level[:, :, self.seen].unsqueeze(-1)}


class Core(nn.Module):
    """The block in the middle: all that is learnt."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.map = nn.Linear(inputs, outputs)

    def forward(self, state: State) -> State:
        return {**state, "h": self.map(state["h"])}


class Head(nn.Module):
    """Last block: leaves y (batch, horizon, outputs, targets, quantiles)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.shape = shape_of(problem)

    def forward(self, state: State) -> State:
        correction: Tensor = state["h"].unflatten(1, self.shape)
        return {"y": state["level"] + correction}


def shape_of(problem: Problem) -> tuple[int, int, int, int]:
    """Of one window's forecast."""
    return problem.horizon, problem.outputs, len(problem.targets), problem.out_quantiles


class Network(_contract.Network):
    """Named blocks, at least embed, core and head; `forward` is their composition."""

    title = "Smoothing"
    inputs = ("site",)  # also possible: "patch" (a neighbourhood on a grid), "all" (every site at once)
    presets = {"slow": {"smoothing": 12}}  # noqa: RUF012 - as in the contract

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen = problem.history * problem.nodes * len(problem.features)
        calendar = (problem.history + problem.horizon) * len(problem.known)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(problem, options.smoothing))
        self.blocks.add_module("core", Core(seen + calendar, math.prod(shape_of(problem))))
        self.blocks.add_module("head", Head(problem))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        """What a search (`search.trials`) may draw."""
        return {"smoothing": trial.suggest_int("smoothing", 1, 12)}
