"""Where things lie in x and known: the places that every network reads.

x (batch, history, nodes, features), known (batch, history + horizon, known); see models/_contract.py.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from models._contract import Problem


def outputs(problem: Problem) -> slice:
    """The nodes that are forecast: the centre of a patch, otherwise every node."""
    centre = problem.nodes // 2
    return slice(centre, centre + 1) if problem.inputs == "patch" else slice(0, problem.nodes)


def target_history(x: Tensor, problem: Problem) -> Tensor:
    """History of the targets of all nodes: (batch, history · nodes · targets)."""
    return x[..., : len(problem.targets)].flatten(1)


def telemetry(problem: Problem) -> list[int]:
    """Channels of x that are measured now: targets and further features, neither lags nor `valid`."""
    return [i for i, name in enumerate(problem.features) if "@" not in name and name != "valid"]


def last_value(x: Tensor, problem: Problem) -> Tensor:
    """Newest targets of the forecast nodes: (batch, 1, outputs, targets)."""
    return x[:, -1:, outputs(problem), : len(problem.targets)]


def lag_steps(problem: Problem) -> int:
    """How many of the target steps have their lag values in x: the last `horizon` positions, if the history has as many."""
    return min(problem.history, problem.horizon)


def lag_values(x: Tensor, problem: Problem, lag: int) -> Tensor:
    """Targets exactly `lag` steps before the last `lag_steps` target steps: (batch, lag_steps, outputs, targets)."""
    channels = [problem.lag_channel(target, lag) for target in problem.targets]
    newest = x[:, -lag_steps(problem) :, outputs(problem)]
    return torch.cat([newest[..., c : c + 1] for c in channels], -1)


def per_site(problem: Problem) -> Problem:
    """The same problem seen by one site alone, for networks that share their weights between sites."""
    return replace(problem, inputs="site", nodes=1, outputs=1, grid=None)
