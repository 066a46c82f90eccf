"""The two halves of a vertically split network, in torch: a party's bottom, and the top that the active party has besides.

A bottom is a network of the zoo without its last block: over the party's own features it leaves an embedding, h (batch, width). The
top is the zoo's head over all parties' embeddings side by side, the active party's first, then by name. (SplitNN: Gupta and
Raskar, "Distributed learning of deep neural network over multiple agents", 2018; Vepakomma et al., "Split learning for health",
2018.)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cellwright.data.scaler import Scaler
from cellwright.data.windows import Raw
from cellwright.errors import FederationError
from cellwright.federation.contract import Arrays
from cellwright.forecaster import Forecaster, network_of
from cellwright.training import seeding
from cellwright.training.batches import Loaded, derived_seed, scaled
from cellwright.training.losses import loss_sum
from models._contract import Batch, Network, Problem

WEIGHTS, MEAN, SQUARE, COUNT = "w/", "m/", "v/", "t"
Head: type[nn.Module] = import_module("models._layers.frame").Head  # the zoo is torch's, and not typed strictly


class _Seeded(AbstractContextManager):
    """torch draws by this seed within, and goes on as before afterwards; one thread at a time."""

    def __init__(self, *path: int) -> None:
        self._seed, self._fork = derived_seed(*path), torch.random.fork_rng(devices=[])

    def __enter__(self) -> None:
        seeding.lock.acquire()
        self._fork.__enter__()
        torch.default_generator.manual_seed(self._seed)  # torch.manual_seed would queue a call for a GPU, each time

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
        seeding.lock.release()


class Half(nn.Module):
    """What one party trains. `others`: width of each other party's embedding; None: this party is passive."""

    def __init__(self, about: Mapping[str, Any], scaler: Scaler, seed: int, others: Mapping[str, int] | None) -> None:
        super().__init__()
        with _Seeded(seed, 0):
            network = network_of(dict(about))
            self.bottom = _without_head(network, str(about["model"]))
            self.width = width_of(network)
            self.others = None if others is None else dict(sorted(others.items()))
            self.top = None if self.others is None else _top(network, self.width + sum(self.others.values()))
        self._scaling = [_forecaster(network, about, scaler)]  # in a list: its parameters are the bottom's already
        self.seed, self.clip = seed, about["embedding_clip"]

    @property
    def scaling(self) -> Forecaster:
        """Raw units to scaled ones and back."""
        return self._scaling[0]

    def batch(self, raw: Raw, sites: np.ndarray) -> tuple[Batch, Tensor]:
        """Scaled windows of this party, and which site each is of."""
        loaded = Loaded(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (*raw, sites)))
        return scaled(self.scaling, loaded), loaded.site

    def embed(self, batch: Batch, *moment: int) -> dict[str, Tensor]:
        """The bottom's state, h (batch, width) among it. `moment`: epoch and step, which seed dropout."""
        with _Seeded(self.seed, 1, *moment):
            state: dict[str, Tensor] = {"x": batch.x, "known": batch.known}
            for block in self.bottom:
                state = block(state)
        return state if self.clip is None or self.top is not None else {**state, "h": clipped(state["h"], self.clip)}

    def forecast(self, state: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Tensor:
        """Scaled forecast (batch, horizon, outputs, targets, 1) from this party's state and the others' embeddings."""
        assert self.top is not None, "a passive party has no top"
        y: Tensor = self.top({**state, "h": torch.cat([state["h"], *(others[name] for name in sorted(others))], 1)})["y"]
        return y


class Trained:
    """A half and its optimiser, taken out of arrays and put back: each message may meet another process."""

    def __init__(self, half: Half, weight_decay: float) -> None:
        self.half, self.count = half, 0
        self.optimizer = torch.optim.AdamW(half.parameters(), weight_decay=weight_decay)  # costs as much as ten steps

    def load(self, arrays: Arrays) -> None:
        """Take what `arrays` gave."""
        self.half.load_state_dict({n: torch.from_numpy(arrays[WEIGHTS + n]) for n in self.half.state_dict()})
        self.count = int(arrays[COUNT][0])
        self.optimizer.state.clear()
        for name, parameter in self.half.named_parameters() if self.count else ():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.count)),
                "exp_avg": torch.from_numpy(arrays[MEAN + name].copy()),
                "exp_avg_sq": torch.from_numpy(arrays[SQUARE + name].copy()),
            }

    def step(self, learning_rate: float, gradient_clip: float | None) -> None:
        """One step of AdamW along the gradients that the parameters hold."""
        if gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.half.parameters(), gradient_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        for parameter in self.half.parameters():
            if parameter.grad is None:  # a head's unused part: AdamW must count it all the same
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.count += 1

    def arrays(self) -> Arrays:
        """Weights, moments and count."""
        out = {WEIGHTS + n: t.detach().numpy().copy() for n, t in self.half.state_dict().items()}
        for name, parameter in self.half.named_parameters() if self.count else ():
            held = self.optimizer.state[parameter]
            out[MEAN + name], out[SQUARE + name] = held["exp_avg"].numpy().copy(), held["exp_avg_sq"].numpy().copy()
        return {**out, COUNT: np.array([self.count], np.int64)}


def clipped(h: Tensor, most: float) -> Tensor:
    """Each row at most `most` long (L2)."""
    return h * (most / h.norm(dim=1, keepdim=True).clamp(min=most))


def loss_of(kind: str, forecast: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum of the loss over the measured targets, normalised, and how many there are."""
    return loss_sum(kind, forecast[..., 0], batch.y, batch.mask)


def errors_of(half: Half, forecast: Tensor, raw: Raw, site: Tensor) -> tuple[float, float, int]:
    """Sums of |error| and of its square, raw units, and how many targets were measured."""
    answer = half.scaling.denormalise(forecast, site)[..., 0]
    mask, target = torch.from_numpy(raw.mask), torch.from_numpy(np.nan_to_num(raw.target))
    error = (answer - target)[mask].double()
    return float(error.abs().sum()), float(error.square().sum()), int(mask.sum())


def width_of(network: Network) -> int:
    """Width of the embedding that a network's blocks before the head leave.

    Raises:
        FederationError: they leave none that a head over several parties could take.
    """
    problem, name = network.problem, type(network).__module__
    x = torch.zeros(2, problem.history, problem.nodes, len(problem.features))
    state: dict[str, Tensor] = {"x": x, "known": torch.zeros(2, problem.history + problem.horizon, len(problem.known))}
    was = network.training
    network.eval()
    with torch.no_grad():
        for block in _without_head(network, name):
            state = block(state)
    network.train(was)
    if state["h"].dim() != 2 or len(state["h"]) != 2:
        raise _not_split(name)
    return state["h"].shape[1]


def _without_head(network: Network, name: str) -> nn.ModuleList:
    *blocks, (_, head) = network.blocks.named_children()
    if network.closed_form or not isinstance(head, Head) or head.sites:
        raise _not_split(name)
    return nn.ModuleList(block for _, block in blocks)


def _not_split(name: str) -> FederationError:
    return FederationError(
        f"model '{name}' cannot be split vertically: its blocks before the head leave no flat embedding that other parties' could "
        "stand beside; use gru, lstm, tcn or mlp"
    )


def _top(network: Network, width: int) -> nn.Module:
    return Head(network.problem, width, residual=str(getattr(network.options, "residual", "none")))


def _forecaster(network: Network, about: Mapping[str, Any], scaler: Scaler) -> Forecaster:
    problem: Problem = network.problem
    tensors = {
        "center": torch.from_numpy(scaler.center),
        "scale": torch.from_numpy(scaler.scale),
        "logged": torch.tensor([True for _ in problem.features]),
        "neighbours": torch.zeros((0, 0), dtype=torch.int64)
        if problem.inputs == "all"
        else torch.arange(len(scaler.sites), dtype=torch.int64)[:, None],
    }
    return Forecaster(network, tensors, dict(about))
