"""The first and the last block that most networks share.

`Embed` turns {"x", "known"} into
    h        whatever the network's own encoder makes of x and known
    context  (batch, width)  what is known of the target steps: their calendar, the lag values at them (left out if none)
    base     (batch, horizon or 1, outputs, targets, 1)  what the network corrects (left out with residual "none")
`Head` maps h (batch, width) and the context linearly to the correction and adds the base. Only these travel between blocks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from models._contract import Problem, State, option
from models._layers import views

RESIDUALS = ("none", "last", "linear")
MIXES = ("flat", "shared")


def residual_option(default: str) -> Any:
    """What the forecast corrects."""
    doc = "what the forecast corrects: nothing, the last value, or a linear map of the targets' history (learnt along)"
    return option(default, doc, choices=RESIDUALS)


def mix_option(default: str) -> Any:
    """How the sites of inputs `all` meet."""
    doc = "with inputs 'all': sites side by side as features of one step (flat), or each alone with the same weights (shared)"
    return option(default, doc, choices=MIXES)


def shares_sites(problem: Problem, mix: str) -> bool:
    """Whether the sites are folded into the batch."""
    return problem.inputs == "all" and mix == "shared"


class Fold(nn.Module):
    """Sites become rows of the batch: x (batch · sites, history, 1, features), known repeated for each site."""

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        sites = x.shape[2]
        rows = known.unsqueeze(1).expand(-1, sites, -1, -1).flatten(0, 1)
        return x.transpose(1, 2).flatten(0, 1).unsqueeze(2), rows


class Context(nn.Module):
    """What is known of the target steps: (batch, width), calendar first, then one part a lag."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        lagged = len(problem.lags) * views.lag_steps(problem) * problem.outputs * len(problem.targets)
        self.width = problem.horizon * len(problem.known) + lagged

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        parts = [known[:, self.problem.history :].flatten(1)] if self.problem.known else []
        parts += [views.lag_values(x, self.problem, lag).flatten(1) for lag in self.problem.lags]
        return torch.cat(parts, 1)


class Last(nn.Module):
    """The last value, for every target step: (batch, 1, outputs, targets, 1)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, x: Tensor) -> Tensor:
        return views.last_value(x, self.problem).unsqueeze(-1)


class Linear(nn.Module):
    """A linear map of all nodes' target history, which starts as persistence: (batch, horizon, outputs, targets, 1)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem
        self.shape = (problem.horizon, problem.outputs, len(problem.targets), 1)
        self.map = nn.Linear(problem.history * problem.nodes * len(problem.targets), math.prod(self.shape))
        self._start_as_persistence()

    def _start_as_persistence(self) -> None:
        problem, targets = self.problem, len(self.problem.targets)
        nn.init.zeros_(self.map.bias)
        weight = torch.zeros(problem.horizon, problem.outputs, targets, problem.history, problem.nodes, targets)
        for out, node in enumerate(range(problem.nodes)[views.outputs(problem)]):
            for target in range(targets):
                weight[:, out, target, -1, node, target] = 1.0
        with torch.no_grad():
            self.map.weight.copy_(weight.reshape(self.map.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.map(views.target_history(x, self.problem)).unflatten(1, self.shape)


def base(problem: Problem, residual: str) -> nn.Module | None:
    """What the network corrects, by the name of the option."""
    if residual == "none":
        return None
    return Last(problem) if residual == "last" else Linear(problem)


class Embed(nn.Module):
    """First block: the network's own encoder of (x, known), beside the context and the base of the forecast."""

    def __init__(self, problem: Problem, encoder: nn.Module, *, residual: str, fold: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.fold = Fold() if fold else None
        self.context = Context(problem)
        self.base = base(problem, residual)

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        if self.fold is not None:
            x, known = self.fold(x, known)
        out: State = {"h": self.encoder(x, known)}
        if self.context.width:
            out["context"] = self.context(x, known)
        if self.base is not None:
            out["base"] = self.base(x)
        return out


def finished(y: Tensor, state: State, sites: int) -> State:
    """The last step of every head: add the base, and bring folded sites (`sites` > 0) back from the batch."""
    if "base" in state:
        y = y + state["base"]
    return {"y": y.squeeze(2).unflatten(0, (-1, sites)).transpose(1, 2) if sites else y}


class Head(nn.Module):
    """Last block: h and context, linearly to the forecast; `sites` unfolds the batch again where `Embed` folded it."""

    def __init__(self, problem: Problem, width: int, *, residual: str, sites: int = 0) -> None:
        super().__init__()
        self.shape = (problem.horizon, problem.outputs, len(problem.targets), problem.out_quantiles)
        self.sites = sites
        self.map = nn.Linear(width + Context(problem).width, math.prod(self.shape))
        if residual != "none":  # start close to the base
            with torch.no_grad():
                self.map.weight.mul_(0.1)
                self.map.bias.zero_()

    def correction(self, state: State) -> Tensor:
        """What is added to the base: (batch, horizon, outputs, targets, quantiles)."""
        h = torch.cat((state["h"], state["context"]), 1) if "context" in state else state["h"]
        return self.map(h).unflatten(1, self.shape)

    def forward(self, state: State) -> State:
        return finished(self.correction(state), state, self.sites)


class Steps(nn.Module):
    """Encoder of networks that read step by step: all nodes' features beside the calendar: (batch, history, width)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.history, self.uses_known = problem.history, bool(problem.known)
        self.width = problem.nodes * len(problem.features) + len(problem.known)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        steps = x.flatten(2)
        return torch.cat((steps, known[:, : self.history]), 2) if self.uses_known else steps


def chain(problem: Problem, mix: str) -> tuple[Problem, bool, int]:
    """The problem as the core sees it, whether sites are folded, and how many to unfold at the end (0: none)."""
    folded = shares_sites(problem, mix)
    return (views.per_site(problem), True, problem.nodes) if folded else (problem, False, 0)
