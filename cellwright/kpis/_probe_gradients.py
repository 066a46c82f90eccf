"""Probe: integrated gradients. Which inputs moved a forecast away from that of a usual moment, and by how much.

    attribution_i = (x_i - b_i) · mean over points a of the path of dF/dx_i (b + a (x - b))

Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017. x is the scaled input, and the start b of the path the
usual value of every site and feature, 0 after scaling; calendar and `valid` stay as they are. F is the mean of the scaled point
forecast over steps and targets, of the forecast site (with inputs "all": of one site a window, each in turn). Points lie in the
middles of equal stretches. Completeness: a window's attributions add up to F(x) - F(b).

Legend: B windows, H history, N nodes, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellwright.errors import TrainingError
from cellwright.forecaster import Forecaster, point_index
from cellwright.kpis._bed import Bed, channels
from cellwright.kpis._probe_importance import Scaled
from cellwright.kpis._probes import Found, Probes
from cellwright.results import Importance

FEEDS = ("inputs_for_90",)
_MOST_GAP = 0.05  # of what was to be explained: beyond it gradients do not explain the forecast
_VALUES_AT_ONCE = 4_000_000  # of x, with what the network keeps for its gradient


@dataclass(frozen=True)
class Attributed:
    """What was attributed, and how much of F(x) - F(b) that leaves unexplained: sum of |gap| / sum of |difference|."""

    attribution: Tensor  # (B, H, N, C)
    gap: float


def probe(bed: Bed) -> Found:
    """Attribute the forecasts of some windows to their inputs.

    Raises:
        TrainingError: the forecast has no gradient, or does not follow from it.
    """
    card, sample = bed.params.scorecard, bed.test
    some = torch.from_numpy(np.unique(np.linspace(0, len(sample) - 1, card.attribution_windows).round().astype(np.int64)))
    scaled = Scaled.of(bed.forecaster, sample)
    valid = channels(bed)["valid"]
    found = integrated(
        bed.forecaster, Scaled(scaled.x[some], scaled.known[some], scaled.site[some]), valid, points=card.attribution_steps
    )
    if not found.gap <= _MOST_GAP:
        raise TrainingError(
            f"integrated gradients leave {found.gap:.0%} of its forecasts unexplained (at most {_MOST_GAP:.0%}): they do not "
            "follow from its gradients"
        )
    inputs = [c for c in range(len(bed.forecaster.problem.features)) if c not in valid]
    share = shares(found.attribution[..., inputs])
    note = f"{len(some)} windows, {card.attribution_steps} points, {found.gap:.1%} unexplained"
    return Found(
        evidence=Probes(attribution=tuple(profile(share).tolist())),
        notes={"inputs_for_90": note},
        importance=_tables(bed, share.numpy(), inputs),
    )


def integrated(forecaster: Forecaster, scaled: Scaled, kept: list[int], *, points: int) -> Attributed:
    """Integrated gradients of these windows; the channels `kept` are the same all along the path."""
    parts, unexplained, asked = [], 0.0, 0.0
    at_once = max(1, _VALUES_AT_ONCE // max(1, scaled.x[0].numel()))
    for first in range(0, len(scaled.x), at_once):
        part = slice(first, first + at_once)
        output = _Output(forecaster, scaled.known[part], first)
        x = scaled.x[part]
        base = torch.zeros_like(x)
        base[..., kept] = x[..., kept]
        parts.append((x - base) * _mean_gradient(output, x, base, points))
        with torch.no_grad():
            difference = output(x) - output(base)
        gaps = parts[-1].sum(dim=(1, 2, 3)) - difference
        unexplained, asked = unexplained + float(gaps.abs().sum()), asked + float(difference.abs().sum())
    return Attributed(torch.cat(parts), unexplained / asked if asked else 0.0)


@dataclass(frozen=True)
class _Output:
    """F: (B,) of x (B, H, N, C). `first`: the number of its first window, which says which site of all it looks at."""

    forecaster: Forecaster
    known: Tensor
    first: int

    def __call__(self, x: Tensor) -> Tensor:
        y = self.forecaster.network(x, self.known)[..., point_index(self.forecaster.problem)]  # (B, F, O, T)
        looked_at = (self.first + torch.arange(len(x))) % y.shape[2]
        return y[torch.arange(len(x)), :, looked_at].mean(dim=(1, 2))


def _mean_gradient(output: _Output, x: Tensor, base: Tensor, points: int) -> Tensor:
    total = torch.zeros_like(x)
    for number in range(points):
        at = (base + (number + 0.5) / points * (x - base)).requires_grad_()
        y = output(at).sum()
        if not y.requires_grad:
            raise TrainingError("its forecast has no gradient: it is computed without one")
        (gradient,) = torch.autograd.grad(y, at, allow_unused=True)
        if gradient is None:
            raise TrainingError("its forecast has no gradient with respect to its inputs")
        total += gradient / points
    return total


def shares(attribution: Tensor) -> Tensor:
    """Absolute attributions (B, H, N, C), each window's brought to a sum of 1; windows to which nothing is attributed are left out.

    Raises:
        TrainingError: nothing is attributed in any window.
    """
    size = attribution.abs()
    total = size.sum(dim=(1, 2, 3))
    if not (total > 0).any():
        raise TrainingError("nothing is attributed to any input: its forecast does not depend on them")
    return size[total > 0] / total[total > 0][:, None, None, None]


def profile(share: Tensor) -> Tensor:
    """(inputs,) mean share of a window's greatest input, of its second, and so on."""
    return share.flatten(1).sort(dim=1, descending=True).values.double().mean(dim=0)


def _tables(bed: Bed, share: np.ndarray, inputs: list[int]) -> tuple[Importance, ...]:
    """Mean shares by feature, by node of a patch, and by step of the history (newest first)."""
    problem, mean = bed.forecaster.problem, share.mean(axis=0, dtype=np.float64)  # (H, N, C)
    names = tuple(problem.features[c] for c in inputs)
    found = [Importance(how="gradients", of="feature", names=names, values=tuple(mean.sum(axis=(0, 1)).tolist()))]
    by_step = mean.sum(axis=(1, 2))[::-1]
    steps = tuple(f"−{k}" for k in range(1, problem.history + 1))
    found.append(Importance(how="gradients", of="step", names=steps, values=tuple(by_step.tolist())))
    return tuple(found)
