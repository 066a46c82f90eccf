"""One round of training at a data owner: some steps of gradient descent from the weights it was sent (M.3387 9.4).

No training loop is started: a round of one step takes milliseconds, and thousands of owners share one network object. Which windows
are drawn, and dropout, depend on (seed, owner, round) alone. The optimiser begins anew in each round, unless AdamW is told to go on
with the moments of the owner's round before (`Local.moments`).

    FedProx     after each step the weights move towards those sent: the proximal map of mu/2 · |w - w0|², which is stable for any
                mu (Li et al., Federated optimization in heterogeneous networks, MLSys 2020)
    SCAFFOLD    each step also goes along c - c_i, at the optimiser's rate; afterwards c_i+ = c_i - c + (x - y) / (K · rate), option II
                of the paper (Karimireddy et al., ICML 2020). For SGD that is the paper's corrected gradient; for AdamW the variates
                are of its preconditioned steps.
    DP-SGD      see dp_training.py
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from cellwright.errors import Refused
from cellwright.federation.contract import Arrays, Instruction, Local
from cellwright.federation.dp_training import PrivateSteps
from cellwright.federation.owner_data import OwnerData, Span
from cellwright.federation.shared_network import SharedNetwork
from cellwright.training import seeding
from cellwright.training.batches import derived_seed
from cellwright.training.losses import forecast_loss

VARIATE, CORRECTION = "c/", "dc/"  # the rule's own arrays: SCAFFOLD's variate to the owner, what it changed by from him

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, as torch names them
_OF_OPACUS = ("grad_sample", "summed_grad")  # attributes of parameters: a gradient a window
MOST_STEPS, MOST_BATCH = 100_000, 1_000_000  # of one round: more is a mistake, or an attack on the owner's machine


@dataclass(frozen=True)
class Trained:
    """What a round made of an owner's weights."""

    arrays: Arrays  # all that travel, private ones included
    steps: int
    loss: float  # mean over the measured targets of all steps, normalised; before each step
    variate: Arrays = field(default_factory=dict)  # SCAFFOLD's own, to be kept
    correction: Arrays = field(default_factory=dict)  # what it changed by
    moments: Arrays = field(default_factory=dict)  # of AdamW, to be kept; none unless asked for


def train(
    shared: SharedNetwork,
    data: OwnerData,
    instruction: Instruction,
    start: Arrays,
    *,
    variate: Arrays | None = None,
    moments: Arrays | None = None,
    noise_seed: int | None = None,
) -> Trained:
    """Train from `start` as `instruction.local` says.

    Args:
        start: all arrays that travel: those sent, the owner's private ones over them.
        variate: SCAFFOLD's own of the rounds before; none: zero.
        moments: AdamW's, as the round before left them.
        noise_seed: of DP-SGD, for tests; without it noise and sampling come from the operating system's entropy.

    Raises:
        Refused: weights of another form, steps that cannot be meant, nothing to train, or a loss that is not finite.
        FederationError: DP-SGD on a network that mixes windows.
    """
    local, owner = instruction.local, data.owner
    _check(owner, local)
    seed = _seed(data.task.seed, owner, instruction.round)
    with shared.lock, seeding.lock, _seeded(seed):
        shared.load(owner, start)
        with _trainable(shared, local, owner) as parameters:
            pulls = _Pulls(parameters, local, _corrections(instruction.extra, variate or {}, parameters))
            optimizer = shared.optimizer(local, parameters)
            if local.moments:
                _go_on(optimizer, parameters, moments or {})
            steps = _steps(shared, parameters, optimizer, data, local, seed, noise_seed)
            losses = _descend(steps, pulls, owner, instruction.round)
            left = _moments(optimizer, parameters) if local.moments else {}
        arrays = shared.arrays()
    _check_finite(owner, instruction.round, arrays)
    own, change = _variates(instruction.extra, variate or {}, start, arrays, local)
    return Trained(arrays, local.steps, losses, own, change, left)


def _check(owner: str, local: Local) -> None:
    for name, value, most in (("steps", local.steps, MOST_STEPS), ("batch", local.batch, MOST_BATCH)):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise Refused(f"{owner}: it is asked for {value} {name} in a round; expected 1 to {most}")
    numbers = {
        "learning rate": (local.learning_rate, 1e-30),
        "proximal weight": (local.proximal, 0.0),
        "weight decay": (local.weight_decay, 0.0),
        "gradient clip": (1.0 if local.gradient_clip is None else local.gradient_clip, 1e-30),
    }
    for name, (number, least) in numbers.items():
        if not (isinstance(number, int | float) and math.isfinite(number) and number >= least):
            raise Refused(f"{owner}: the {name} it is given cannot be meant ({number})")
    if local.optimizer not in ("sgd", "adamw"):
        raise Refused(f"{owner}: it is asked to train by '{str(local.optimizer)[:40]}'; there are sgd and adamw")
    if wrong := [prefix for prefix in (*local.private, *local.frozen) if not isinstance(prefix, str) or not prefix]:
        raise Refused(f"{owner}: {wrong[0]!r} is no prefix of a parameter's name")


def _seed(seed: int, owner: str, round_: int) -> int:
    return derived_seed(seed, 11, int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4]), round_)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Dropout draws from this seed; what torch drew before goes on afterwards. Cheaper than `manual_seed`, which also seeds GPUs."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


@contextmanager
def _trainable(shared: SharedNetwork, local: Local, owner: str) -> Iterator[dict[str, nn.Parameter]]:
    """The parameters that this round changes; those that stay as they were sent get no gradient meanwhile."""
    frozen = [p for name, p in shared.parameters.items() if name.startswith(local.frozen)]
    chosen = {name: p for name, p in shared.parameters.items() if not name.startswith(local.frozen)}
    if not chosen:
        raise Refused(f"{owner}: '{shared.network.title}' has no parameter to train by gradient descent (frozen: {local.frozen})")
    shared.network.train()
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield chosen
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for parameter in shared.parameters.values():
            parameter.grad = None
            for left in _OF_OPACUS:
                parameter.__dict__.pop(left, None)


def _drawn(span: Span, local: Local, seed: int) -> Iterator[np.ndarray]:
    """Positions of each step's windows: one permutation after the other, so that none comes twice before all came once."""
    rng, size = np.random.default_rng(seed), min(local.batch, len(span))
    order, at = rng.permutation(len(span)), 0
    for _ in range(local.steps):
        if at + size > len(order):
            order, at = np.concatenate((order[at:], rng.permutation(len(span)))), 0
        yield order[at : at + size]
        at += size


def _steps(
    shared: SharedNetwork,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    data: OwnerData,
    local: Local,
    seed: int,
    noise_seed: int | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each step done, its (sum of the loss, measured targets); the caller's pulls come after each."""
    span, network, kind = data.training, shared.network, data.task.loss
    if local.dp_sgd is not None:
        private = PrivateSteps(network, parameters, optimizer, kind, local, len(span), noise_seed)
        for chosen in private.sampled():
            yield private.step(data.batch(network, span, chosen))
        return
    for chosen in _drawn(span, local, seed):
        batch = data.batch(network, span, chosen)
        total, count = forecast_loss(kind, network.problem, network(batch.x, batch.known), batch)
        for parameter in parameters.values():
            parameter.grad = None
        torch.autograd.backward(total / count.clamp(min=1))
        if local.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters.values(), local.gradient_clip)
        optimizer.step()
        yield total.detach(), count


def _go_on(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], moments: Arrays) -> None:
    """Give AdamW its state back; a parameter that has none begins anew."""
    for name, parameter in parameters.items():
        if f"{name}/{_MOMENTS[0]}" in moments:
            optimizer.state[parameter] = {m: torch.from_numpy(moments[f"{name}/{m}"].copy()) for m in _MOMENTS}


def _moments(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> Arrays:
    """AdamW's state; nothing of SGD, which has none."""
    states = {name: optimizer.state.get(parameter, {}) for name, parameter in parameters.items()}
    return {f"{name}/{m}": state[m].numpy().copy() for name, state in states.items() for m in _MOMENTS if m in state}


class _Pulls:
    """What moves the weights after each step beside the gradient: SCAFFOLD's correction, then FedProx's pull."""

    def __init__(self, parameters: dict[str, nn.Parameter], local: Local, corrections: dict[str, Tensor]) -> None:
        self._rate, self._mu = local.learning_rate, local.proximal
        self._corrected = [(parameters[name], tensor) for name, tensor in corrections.items()]
        self._start = [(p, p.detach().clone()) for p in parameters.values()] if local.proximal else []

    @torch.no_grad()
    def apply(self) -> None:
        for parameter, correction in self._corrected:
            parameter.sub_(correction, alpha=self._rate)
        pull = self._rate * self._mu
        for parameter, start in self._start:
            parameter.lerp_(start, pull / (1 + pull))


def _descend(steps: Iterator[tuple[Tensor, Tensor]], pulls: _Pulls, owner: str, round_: int) -> float:
    """Mean loss of all steps."""
    total, count = 0.0, 0
    for number, (loss, measured) in enumerate(steps, 1):
        pulls.apply()
        value = float(loss)
        if not math.isfinite(value):
            raise Refused(
                f"{owner}: the loss of step {number} in round {round_} is {value}; training stopped, nothing of it was sent; lower "
                "federation.learning_rate"
            )
        total, count = total + value, count + int(measured)
    return total / max(1, count)


def _check_finite(owner: str, round_: int, arrays: Arrays) -> None:
    if wrong := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise Refused(
            f"{owner}: after round {round_} '{wrong[0]}' holds values that are not finite; nothing of it was sent; lower "
            "federation.learning_rate"
        )


def _corrections(extra: Arrays, variate: Arrays, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """c - c_i of each parameter that has a variate.

    Raises:
        Refused: a variate of another shape.
    """
    out = {}
    for name, parameter in parameters.items():
        c = extra.get(VARIATE + name)
        if c is None:
            continue
        if c.shape != tuple(parameter.shape):
            raise Refused(f"the variate of '{name}' is of shape {c.shape}, the parameter's is {tuple(parameter.shape)}")
        out[name] = torch.from_numpy(np.asarray(c - variate.get(name, np.float32(0)), np.float32))
    return out


def _variates(extra: Arrays, variate: Arrays, start: Arrays, end: Arrays, local: Local) -> tuple[Arrays, Arrays]:
    """The owner's new variates, and what each changed by; of all arrays that the rule sent one for."""
    own, change = {}, {}
    for key, c in extra.items():
        name = key.removeprefix(VARIATE)
        if not key.startswith(VARIATE) or name not in end or name.startswith(local.private):
            continue
        before = variate.get(name, np.zeros_like(c))
        own[name] = (before - c + (start[name] - end[name]) / np.float32(local.steps * local.learning_rate)).astype(np.float32)
        change[name] = own[name] - before
    return own, change
