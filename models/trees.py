"""Gradient-boosted trees, evaluated from tables.

Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics 29(5), 2001; grown leaf by leaf on
histograms as LightGBM does (Ke et al., NeurIPS 2017), by scikit-learn's HistGradientBoostingRegressor.
One ensemble a horizon step, target and quantile corrects the last value. Unlike usual tabular designs the features are
differences to the last value, so that one ensemble serves all sites at any level; of a patch it sees the nearest sites one by
one and the rest as a mean a ring. A masked target is no row of its own ensemble. Quantiles are fitted by the pinball loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers import patch, views
from models._layers.trees import Forest

_VALUES_PER_S = 60_000_000  # row · feature · tree that a slow core grows in a second, histograms and splits included
_USUAL_TREES = 150  # of an ensemble, where it stops by itself


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of gradient-boosted trees."""

    trees: int = option(300, "most trees of an ensemble", low=1, high=5000)
    learning_rate: float = option(0.1, "share of each tree's correction that is taken", low=1e-4, high=1.0)
    leaves: int = option(31, "most leaves of a tree", low=2, high=1024)
    depth: int = option(6, "most levels of a tree", low=1, high=16)
    min_rows: int = option(100, "fewest rows of a leaf, and at most a twentieth of all", low=1)
    penalty: float = option(5.0, "weight of the squared leaf values", low=0.0)
    feature_share: float = option(0.5, "share of the features that each split looks at, drawn anew", low=0.01, high=1.0)
    loss: str = option("absolute", "what the point forecast minimises", choices=("absolute", "squared"))
    rows: int = option(200_000, "most training windows, an even sample of them", low=100)
    patience: int = option(15, "trees without a better error on the newest tenth of the rows before growing stops", low=1)
    steps: int = option(12, "newest steps seen one by one; what is older, as means of as many steps", low=1)
    near: int = option(1, "of a patch: sites up to this many squares away are seen one by one", low=0)
    rings: int = option(2, "of a patch: rings of sites seen as their mean", low=0)


class Thin(nn.Module):
    """History (B, H, …) -> (B, S, …): the newest steps as they are, before them means of `steps` of the older ones each."""

    weights: Tensor  # (S, H)

    def __init__(self, history: int, steps: int) -> None:
        super().__init__()
        stops = [*range(history, max(0, history - steps), -1), *range(max(0, history - steps), 0, -steps)][::-1]
        starts = [0, *stops[:-1]]
        weights = torch.zeros(len(stops), history, dtype=torch.float64)
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            weights[row, start:stop] = 1 / (stop - start)
        self.short = history <= steps
        self.count = len(stops)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.short:
            return x
        return (self.weights @ x.double().flatten(2)).to(x.dtype).unflatten(2, x.shape[2:])


class Design(nn.Module):
    """What the trees see of a window: h (B, features), and base (B, 1, 1, targets, 1), the last value.

    Sums are taken in float64 and rounded: added up in another order they would differ in the last bit, and a threshold in between
    sends two runtimes to different leaves.
    """

    rings: Tensor  # (rings, nodes): 1 where a node lies in a ring

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__()
        self.problem = problem
        self.targets = len(problem.targets)
        self.others = [c for c in views.telemetry(problem) if c >= self.targets]
        self.thin = Thin(problem.history, options.steps)
        distance = _distances(patch.edge(problem))
        self.near = [n for n, d in enumerate(distance) if 0 < d <= options.near]
        rings = range(1, min(options.rings, max(distance)) + 1)
        masks = torch.tensor([[d == ring for d in distance] for ring in rings], dtype=torch.float64)
        self.register_buffer("rings", masks.reshape(-1, problem.nodes), persistent=False)
        self.width = self._width()

    def _width(self) -> int:
        """Columns of h, by what `forward` makes of zeros."""
        p = self.problem
        zeros = {
            "x": torch.zeros(1, p.history, p.nodes, len(p.features)),
            "known": torch.zeros(1, p.history + p.horizon, len(p.known)),
        }
        return int(self(zeros)["h"].shape[1])

    def forward(self, state: State) -> State:
        x, known, problem = state["x"], state["known"], self.problem
        own = x[:, :, problem.nodes // 2]
        last = own[:, -1:, : self.targets]
        parts = [last, self.thin(own[..., : self.targets])[:, :-1] - last]
        parts += [self.thin(own[..., self.others])] if self.others else []
        parts += self._around(x, last)
        parts += [views.lag_values(x, problem, lag).squeeze(2) - last for lag in problem.lags]
        parts += [known[:, problem.history], known[:, -1]] if problem.known else []  # of the first and the last target step
        return {"h": torch.cat([part.flatten(1) for part in parts], 1), "base": last[:, :, None, :, None]}

    def _around(self, x: Tensor, last: Tensor) -> list[Tensor]:
        """Neighbours: how far from the own last value, how they changed, and the means of the rings."""
        values = x[..., : self.targets]
        parts = []
        if self.near:
            near = values[:, -2:, self.near]
            parts += [near[:, -1] - last, near[:, -1] - near[:, 0]]
        if len(self.rings):
            parts.append(self.thin(self._ring_means(values, x)) - last[:, :, None])
        return parts

    def _ring_means(self, values: Tensor, x: Tensor) -> Tensor:
        """(B, H, rings, targets), over the nodes that lie on the grid and were measured; 0, the usual value, where none was."""
        if "valid" not in self.problem.features:
            return (self.rings @ values.double() / self.rings.sum(1, keepdim=True)).to(x.dtype)
        valid = x[..., self.problem.features.index("valid")].double().unsqueeze(-1)
        return (self.rings @ (values * valid) / (self.rings @ valid).clamp(min=1)).to(x.dtype)


def _distances(edge: int) -> list[int]:
    """Squares from the centre of a patch to each of its nodes, diagonals counting as one."""
    middle = edge // 2
    return [max(abs(row - middle), abs(column - middle)) for row in range(edge) for column in range(edge)]


class Core(nn.Module):
    """The forest: h (B, ensembles), ensembles in order of horizon step, target, quantile."""

    def __init__(self, forest: Forest) -> None:
        super().__init__()
        self.forest = forest

    def forward(self, state: State) -> State:
        return {"h": self.forest(state["h"]), "base": state["base"]}


class Head(nn.Module):
    """Shapes the corrections and adds the last value."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.shape = (problem.horizon, 1, len(problem.targets), problem.out_quantiles)

    def forward(self, state: State) -> State:
        return {"y": state["h"].unflatten(1, self.shape) + state["base"]}


class Network(_contract.Network):
    """Boosted trees of histograms. It is fitted outside of torch, by the fitter `trees`."""

    title = "Gradient-boosted trees"
    paper = "Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics 29(5), 2001"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site")
    closed_form = True
    fitter = "trees"
    jumps = True

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        design = Design(problem, options)
        ensembles = problem.horizon * len(problem.targets) * problem.out_quantiles
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", design)
        self.blocks.add_module("core", Core(Forest(design.width, ensembles, options.depth)))
        self.blocks.add_module("head", Head(problem))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.2, log=True),
            "leaves": trial.suggest_int("leaves", 8, 64, log=True),
            "min_rows": trial.suggest_int("min_rows", 20, 400, log=True),
            "penalty": trial.suggest_float("penalty", 0.1, 100.0, log=True),
        }

    def most_windows(self, budget_s: float) -> int:
        """`rows`, or fewer where the ensembles could not grow as many trees as they usually need within the budget."""
        features = self.blocks.embed.width * self.options.feature_share
        ensembles = len(self.blocks.core.forest.start)
        return min(self.options.rows, max(1000, int(budget_s * _VALUES_PER_S / (_USUAL_TREES * ensembles * features))))
