"""The tokens of an encoder-decoder: the encoder's history, and the decoder's start and the steps it is asked for.

Legend: H history, L steps of the decoder's start (the newest of the history), F horizon.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models._contract import Problem, option
from models._layers.frame import Steps
from models._layers.future import Future


def start_option() -> Any:
    """How much of the history the decoder starts from."""
    return option(0, "newest steps of the history that the decoder starts from; 0: half of them (the paper)", low=0)


def start_steps(history: int, asked: int) -> int:
    """Steps of the decoder's start.

    Raises:
        ValueError: more than the history has.
    """
    if asked > history:
        raise ValueError(f"start: the decoder cannot start from {asked} steps of a history of {history}; lower it, or 0 for half")
    return asked or max(1, history // 2)


class Tokens(nn.Module):
    """h (batch, H + L + F, width): a token a step; of the target steps, what is known of them is all they hold."""

    def __init__(self, problem: Problem, width: int, start: int) -> None:
        super().__init__()
        self.start = start
        self.steps, self.future = Steps(problem), Future(problem)
        self.past = nn.Linear(self.steps.width, width)
        self.begin = nn.Linear(self.steps.width, width)
        self.ask = nn.Linear(self.future.width, width, bias=False) if self.future.width else None
        self.position = nn.Parameter(torch.randn(problem.history + start + problem.horizon, width) * 0.02)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        steps = self.steps(x, known)
        parts = [self.past(steps), self.begin(steps[:, -self.start :])]
        parts.append(self._asked(x, known, parts[0]))
        return torch.cat(parts, 1) + self.position

    def _asked(self, x: Tensor, known: Tensor, like: Tensor) -> Tensor:
        """(batch, F, width); zeros, which leave only the position, where nothing is known."""
        if self.ask is None:
            return like.new_zeros(like.shape[0], self.future.problem.horizon, like.shape[2])
        return self.ask(self.future(x, known))
