"""Which column of a network's first layers reads which channel: feature alignment between tasks that see different features.

Each value of the inputs is given a number of its own, and the layers are asked which numbers reach them: no network has to say how it
lays out its inputs. A channel goes by its role: targets by their position (what is forecast is the target, whatever it is called),
other telemetry and the calendar by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.federation.contract import Arrays, Task

if TYPE_CHECKING:
    from torch import Tensor

    from models._contract import Problem

Column = tuple[str, str, int]  # kind ("x" or "known"), channel, step before the first target (0: the same at all steps)

_WEIGHTS = ("weight", "weight_ih_l0")  # of Linear and Conv1d, and of recurrent layers; columns are axis 1


def columns(task: Task) -> dict[str, tuple[Column | None, ...]]:
    """By the name of a weight that reads raw inputs: what each of its columns reads; None: something else."""
    import torch
    from torch import nn

    from cellwright.federation.initial import network_of

    network = network_of(task).eval()
    x, known, meaning = _tagged(network.problem)
    found: dict[str, tuple[Column | None, ...]] = {}

    def look(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, given: tuple[Tensor, ...], __: Any) -> None:
            row, by_step = _row(module, given[0])
            read = tuple(_meant(meaning, float(value), by_step=by_step) for value in row)
            weight = next(f"{name}.{w}" for w in _WEIGHTS if hasattr(module, w))
            if any(read):
                found[weight] = read

        return module.register_forward_hook(hook)

    hooks = [look(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.RNNBase)]
    with torch.no_grad():
        network(x, known)
    for hook in hooks:
        hook.remove()
    return found


def adapted(source: Arrays, source_task: Task, fresh: Arrays, task: Task) -> Arrays:
    """Weights that read raw inputs, for the target's channels: columns of shared channels from the source, 0 for all others.

    A network that starts so says of the target what it would say of the source, until it learns what the new channels are good for.
    """
    theirs, ours = columns(source_task), columns(task)
    out: Arrays = {}
    for name, read in ours.items():
        if name not in theirs or name not in source or source[name].shape[0] != fresh[name].shape[0]:
            continue
        places = {column: i for i, column in enumerate(theirs[name]) if column is not None}
        shared = [(i, places[column]) for i, column in enumerate(read) if column in places]
        if shared and source[name].shape[2:] == fresh[name].shape[2:]:
            weight = np.zeros_like(fresh[name])
            here, there = (list(side) for side in zip(*shared, strict=True))
            weight[:, here] = source[name][:, there]
            out[name] = weight
    return out


def _tagged(problem: Problem) -> tuple[Tensor, Tensor, dict[float, Column]]:
    """Inputs whose every value is another whole number, and what each number stands for."""
    import torch

    steps = problem.history + problem.horizon
    x = torch.arange(1, 1 + problem.history * len(problem.features), dtype=torch.float32)
    first = len(x) + 1
    known = torch.arange(first, first + steps * len(problem.known), dtype=torch.float32)
    roles = [_role(problem, feature) for feature in problem.features]
    meaning: dict[float, Column] = {}
    for i in range(len(x)):
        meaning[1.0 + i] = ("x", roles[i % len(roles)], i // len(roles) - problem.history)
    for i in range(len(known)):
        meaning[float(first + i)] = ("known", problem.known[i % len(problem.known)], i // len(problem.known) - problem.history)
    return x.reshape(1, problem.history, 1, -1), known.reshape(1, steps, -1), meaning


def _role(problem: Problem, feature: str) -> str:
    name, at, lag = feature.partition("@")
    return f"target {problem.targets.index(name)}{at}{lag}" if name in problem.targets else feature


def _row(module: Any, given: Tensor) -> tuple[Any, bool]:
    """What the columns hold, and whether they hold the same channels at every step."""
    from torch import nn

    first = given[0]
    if isinstance(module, nn.Conv1d):
        return first[:, -1], True
    return (first[-1], True) if first.dim() == 2 else (first, False)


def _meant(meaning: dict[float, Column], value: float, *, by_step: bool) -> Column | None:
    column = meaning.get(value)
    return column if column is None or not by_step else (column[0], column[1], 0)
