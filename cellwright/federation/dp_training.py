"""DP-SGD at a data owner (Abadi et al., Deep learning with differential privacy, CCS 2016), by Opacus's optimiser.

Every step draws each window on its own with probability batch/windows (Poisson), takes each window's gradient apart, clips it, sums,
adds noise and divides by the batch that was expected: what the accountant counts. Draws and noise come from the operating system's
entropy; a seed is for tests, and hides nothing.

A window's gradient is that of a forward pass in which it is alone (torch.func), so that a network that folds sites or channels into
its batch is counted right. Recurrent layers are computed by Opacus's own, which have the same parameters; a network whose kernels
cannot be mapped over windows (the selective scan of Mamba) takes them one by one, exactly and slowly.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from cellwright.errors import FederationError
from cellwright.federation.contract import Local
from cellwright.training.losses import forecast_loss
from models._contract import Batch, Network

_VALUES_AT_ONCE = 16_000_000  # gradients of a chunk of windows: 64 MB

_Gradients = dict[str, Tensor]  # of each parameter, (windows, *its shape)


class PrivateSteps:
    """The steps of one round."""

    def __init__(
        self,
        network: Network,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        loss: str,
        local: Local,
        windows: int,
        noise_seed: int | None = None,
    ) -> None:
        """`windows`: how many there are to draw from; `noise_seed`: for tests.

        Raises:
            FederationError: a layer that mixes the windows of a batch, or options that give no privacy.
        """
        from opacus.optimizers import DPOptimizer

        dp = local.dp_sgd
        if dp is None or not (dp.noise_multiplier > 0 and dp.max_grad_norm > 0):
            raise FederationError(f"DP-SGD wants a noise multiplier and a norm above 0, found {dp}")
        check_layers(network)
        self._windows, self._steps, self._batch = windows, local.steps, min(local.batch, windows)
        self._parameters = parameters
        self._gradients = ExampleGradients(network, parameters, loss)
        self._at_once = max(1, _VALUES_AT_ONCE // sum(p.numel() for p in parameters.values()))
        self._rng = np.random.default_rng(secrets.randbits(128) if noise_seed is None else noise_seed)
        self._optimizer = DPOptimizer(
            optimizer,
            noise_multiplier=dp.noise_multiplier,
            max_grad_norm=dp.max_grad_norm,
            expected_batch_size=self._batch,
            generator=torch.Generator().manual_seed(int(self._rng.integers(2**63))),
            secure_mode=noise_seed is None,  # four draws a value: the low bits of one tell of what it was added to
        )

    def sampled(self) -> Iterator[np.ndarray]:
        """Positions of each step's windows; a step may have none."""
        rate = self._batch / self._windows
        for _ in range(self._steps):
            yield np.flatnonzero(self._rng.random(self._windows) < rate)

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One noisy step; (sum of the loss, measured targets) before it."""
        self._optimizer.zero_grad(set_to_none=True)
        sums, firsts = torch.zeros(2), range(0, max(1, len(batch.x)), self._at_once)
        for first in firsts:
            gradients, losses = self._gradients(Batch(*(part[first : first + self._at_once] for part in batch)))
            for name, gradient in gradients.items():
                self._parameters[name].grad_sample = gradient  # type: ignore[attr-defined]
            self._optimizer.signal_skip_step(first != firsts[-1])
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            sums += losses
        return sums[0], sums[1]


def check_layers(network: nn.Module) -> None:
    """Whether each window's forecast depends on that window alone.

    Raises:
        FederationError: a layer that mixes windows; it is named.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise FederationError(
                f"DP-SGD cannot train '{name}' ({type(layer).__name__}): it mixes the windows of a batch, so that no window's gradient "
                "is its own; choose a network without it, or another mechanism (local_dp, central_dp)"
            )


class ExampleGradients:
    """Each window's own gradient of its mean loss over its measured targets."""

    def __init__(self, network: Network, parameters: dict[str, nn.Parameter], loss: str) -> None:
        from torch.func import grad, vmap

        self._network, self._parameters, self._loss = network, parameters, loss
        twin = _mappable(network)
        self._twin, self._mappable = twin or network, twin is not None
        self._rest = {n: p.detach() for n, p in network.named_parameters() if n not in parameters} | dict(network.named_buffers())
        self._mapped = vmap(grad(self._one, has_aux=True), in_dims=(None, 0, 0, 0, 0), randomness="different")

    def __call__(self, batch: Batch) -> tuple[_Gradients, Tensor]:
        """The gradients of a batch; and (sum of the loss, measured targets)."""
        weights = {name: p.detach() for name, p in self._parameters.items()}
        if not len(batch.x):
            return {name: p.new_zeros((0, *p.shape)) for name, p in weights.items()}, torch.zeros(2)
        if self._mappable:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings(
                        "ignore", "There is a performance drop"
                    )  # torch maps some kernels one window at a time
                    gradients, sums = self._mapped(weights, *batch)
            except RuntimeError:  # torch has no rule to map one of the network's kernels over windows
                self._mappable = False
            else:
                return gradients, sums.sum(0)
        return self._one_by_one(batch)

    def _one(self, weights: dict[str, Tensor], *window: Tensor) -> tuple[Tensor, Tensor]:
        from torch.func import functional_call

        batch = Batch(*(part[None] for part in window))
        forecast = functional_call(self._twin, {**self._rest, **weights}, (batch.x, batch.known))
        total, count = forecast_loss(self._loss, self._network.problem, forecast, batch)
        return total / count.clamp(min=1), torch.stack((total, count.to(total.dtype)))

    def _one_by_one(self, batch: Batch) -> tuple[_Gradients, Tensor]:
        parameters, sums = list(self._parameters.values()), torch.zeros(2)
        rows = []
        for i in range(len(batch.x)):
            one = Batch(*(part[i : i + 1] for part in batch))
            total, count = forecast_loss(self._loss, self._network.problem, self._network(one.x, one.known), one)
            rows.append(torch.autograd.grad(total / count.clamp(min=1), parameters, allow_unused=True, materialize_grads=True))
            sums += torch.stack((total.detach(), count.to(total.dtype)))
        return {name: torch.stack(column) for name, column in zip(self._parameters, zip(*rows, strict=True), strict=True)}, sums


def _mappable(network: Network) -> nn.Module | None:
    """The network with Opacus's recurrent layers, itself if it has none; None where their parameters have other names."""
    if not any(isinstance(layer, nn.RNNBase) for layer in network.modules()):
        return network
    from opacus.validators import ModuleValidator

    twin: nn.Module = ModuleValidator.fix(network)
    same = {name for name, _ in twin.named_parameters()} == {name for name, _ in network.named_parameters()}
    return twin.train(network.training) if same else None
