"""Reversible instance normalisation: each window less its own mean, over its own deviation, undone in the forecast.

Kim et al., Reversible instance normalization for accurate time-series forecasting against distribution shift, ICLR 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models._contract import Problem, State, option
from models._layers import frame, views

_FLOOR = 0.01  # added to the variance (RevIN: 1e-5): x is standardised by site, and six equal values must not blow up a lag


def revin_option(default: str = "off") -> Any:
    """Which part of the instance normalisation is done."""
    doc = "instance normalisation: off, mean only (centre), mean and deviation (full, the paper)"
    return option(default, doc, choices=("off", "centre", "full"))


class RevIN(nn.Module):
    """Telemetry and lags of each window less their mean over the history, and divided by their deviation if `scaled`."""

    def __init__(self, problem: Problem, *, scaled: bool) -> None:
        super().__init__()
        self.scaled, self.targets = scaled, len(problem.targets)
        self.now = len(views.telemetry(problem))
        self.lagged = [problem.targets.index(name.split("@")[0]) for name in problem.features if "@" in name]
        self.rest = len(problem.features) - self.now - len(self.lagged)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """x normalised, the targets' means and deviations (batch, 1, nodes, targets)."""
        now = x[..., : self.now]
        mean = now.mean(1, keepdim=True)
        scale = (now.var(1, keepdim=True, correction=0) + _FLOOR).sqrt() if self.scaled else None
        order = list(range(self.now)) + self.lagged
        end = self.now + len(self.lagged)
        out = x[..., :end] - mean[..., order]
        if scale is not None:
            out = out / scale[..., order]
        if self.rest:
            out = torch.cat((out, x[..., end:]), -1)
        return out, mean[..., : self.targets], None if scale is None else scale[..., : self.targets]


class Embed(frame.Embed):
    """The common first block, whose encoder reads the normalised window; its mean is the base unless a residual is.

    Without `context` the head is left to what the encoder made of calendar and lags.
    """

    def __init__(
        self, problem: Problem, encoder: nn.Module, *, residual: str, revin: str, fold: bool = False, context: bool = True
    ) -> None:
        super().__init__(problem, encoder, residual=residual, fold=fold)
        self.problem, self.with_context = problem, context and self.context.width > 0
        self.revin = RevIN(problem, scaled=revin == "full") if revin != "off" else None

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        if self.fold is not None:
            x, known = self.fold(x, known)
        normal, out = self._normalised(x)
        out["h"] = self.encoder(normal, known)
        if self.with_context:
            out["context"] = self.context(x, known)
        if self.base is not None:
            out["base"] = self.base(x)
        return out

    def _normalised(self, x: Tensor) -> tuple[Tensor, State]:
        """x after RevIN, and what the head needs to undo it."""
        if self.revin is None:
            return x, {}
        x, mean, scale = self.revin(x)
        seen = views.outputs(self.problem)
        out = {"base": mean[:, :, seen].unsqueeze(-1)}
        if scale is not None:
            out["scale"] = scale[:, :, seen].unsqueeze(-1)
        return x, out


class Head(frame.Head):
    """The common head, whose correction is scaled back by the deviation of the window where RevIN divided by it."""

    def correction(self, state: State) -> Tensor:
        y = super().correction(state)
        return y * state["scale"] if "scale" in state else y
