"""Gradient inversion: the window that an owner trained on, found from the update it sent.

After Zhu, Liu and Han, Deep leakage from gradients, NeurIPS 2019: inputs and targets are optimised until their gradient is the one
observed. Here L-BFGS does so from several starts; what an attacker may know beside the update (the calendar of the window) is given.
The attacker is whoever sees the update in the clear: the coordinator, or the wire.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellwright.federation.contract import Arrays
from cellwright.training.losses import forecast_loss
from models._contract import Batch, Network


@dataclass(frozen=True)
class Inversion:
    """What the attack found, normalised as the network sees it."""

    history: np.ndarray  # (history, nodes, features)
    target: np.ndarray  # (horizon, outputs, targets)
    distance: float  # squared distance of the gradients over the observed one's squared length; 0: the same

    def correlation(self, history: np.ndarray) -> float:
        """Pearson's correlation of the history found with the true one; near 1: the telemetry has leaked."""
        return float(np.corrcoef(self.history.ravel(), np.asarray(history).ravel())[0, 1])

    def error(self, history: np.ndarray) -> float:
        """Root mean squared error of the history found, in standard deviations of the true one."""
        truth = np.asarray(history)
        return float(np.sqrt(np.mean((self.history - truth) ** 2)) / truth.std())


def gradient_of(delta: Arrays, learning_rate: float) -> Arrays:
    """The gradient behind an update of one step of plain gradient descent."""
    return {name: -array / learning_rate for name, array in delta.items()}


def gradient_inversion(
    network: Network, gradient: Arrays, known: Tensor, *, loss: str = "mse", iterations: int = 200, starts: int = 4, seed: int = 0
) -> Inversion:
    """Look for one window whose gradient is the one observed.

    network: with the weights that the owner started from; it is not changed.
    gradient: by parameter; those that it lacks are not compared.
    known: (1, history + horizon, known), the window's calendar.
    loss: that of the training; "mse" and "huber" tell more than "mae", whose gradient knows of an error its sign alone.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    network = copy.deepcopy(network).eval()
    wanted = {name: torch.as_tensor(np.asarray(array, np.float32)) for name, array in gradient.items()}
    random = torch.Generator().manual_seed(seed)
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels have no second derivative
        found = [_attempt(network, wanted, known, loss, iterations, random) for _ in range(starts)]
    return min(found, key=lambda one: one.distance)


def _attempt(
    network: Network, wanted: dict[str, Tensor], known: Tensor, loss: str, iterations: int, random: torch.Generator
) -> Inversion:
    """One search, from a random window."""
    p = network.problem
    x = torch.randn((1, p.history, p.nodes, len(p.features)), generator=random).requires_grad_()
    y = torch.randn((1, p.horizon, p.outputs, len(p.targets)), generator=random).requires_grad_()
    search = torch.optim.LBFGS(
        [x, y], max_iter=iterations, history_size=50, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def closure() -> float:
        value = _distance(network, wanted, Batch(x, known, y, torch.ones_like(y)), loss)
        x.grad, y.grad = torch.autograd.grad(value, [x, y], allow_unused=True, materialize_grads=True)
        return float(value.detach())

    search.step(closure)  # type: ignore[no-untyped-call]
    last = closure()
    return Inversion(x.detach().numpy()[0], y.detach().numpy()[0], last if np.isfinite(last) else float("inf"))


def _distance(network: Network, wanted: dict[str, Tensor], batch: Batch, loss: str) -> Tensor:
    """Squared distance of the batch's gradient to the one observed, over the latter's squared length."""
    names = [name for name, _ in network.named_parameters() if name in wanted]
    weights = dict(network.named_parameters())
    total, count = forecast_loss(loss, network.problem, network(batch.x, batch.known), batch)
    made = torch.autograd.grad(
        total / count, [weights[n] for n in names], create_graph=True, allow_unused=True, materialize_grads=True
    )
    apart = torch.stack([(mine - wanted[name]).square().sum() for name, mine in zip(names, made, strict=True)]).sum()
    return apart / torch.stack([g.square().sum() for g in wanted.values()]).sum().clamp(min=1e-30)
