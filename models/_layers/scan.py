"""Selective scan (S6), the heart of Mamba.

Gu and Dao, Mamba: linear-time sequence modeling with selective state spaces, arXiv:2312.00752, equations 2 to 4. For every
channel d and state n

    h_t = exp(delta_t A_n) h_(t-1) + delta_t B_(t,n) u_t        y_t = sum_n C_(t,n) h_(t,n)

Two ways to the same states: a loop over the steps, and a parallel scan of logarithmic depth (Blelloch, 1990) over the
associative pairs (decay, input). Which is taken follows from the sizes alone, by the crossover that benchmarks/scan.py measured
on one thread of a CPU; a GPU goes by the same constants, though its own crossover lies elsewhere.
Gradients are written out: the backward pass computes the states again a few rows at a time, as the paper does on a GPU, so that
neither pass ever holds the states of a whole batch.

Legend: R rows, T steps, G groups that do not meet (positions of a map, directions of a scan), D channels, N states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

LONGEST_LOOP = 8  # steps; of longer histories a few rows, and every exported graph, are scanned in parallel
FEW_STATES = 1 << 12  # values of one step up to which the loop's many small operations cost more than the scan's extra work
_VALUES_AT_ONCE = 1 << 16  # values of one step that stay in a core's cache (256 KB in float32)


def selective_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y (R, T, G, D) of u and delta (R, T, G, D), a (G or 1, N, D) below 0, b and c (R, T, G, N).

    Computed in delta's precision, whatever autocast made of the others: states add up over many steps, and the gradients that are
    written out here are taken outside of autocast, where a product of unlike precisions is refused.
    """
    if torch.compiler.is_exporting():  # the number of rows is not known then, and a loop is a graph of many nodes
        return _outputs(u, delta, a, b, c, in_parallel=u.shape[1] > LONGEST_LOOP)
    with _as_given(u):
        u, a, b, c = (x.to(delta.dtype) for x in (u, a, b, c))
        if torch.is_grad_enabled():
            return _Scan.apply(u, delta, a, b, c)  # type: ignore[no-any-return, no-untyped-call]
        return _in_pieces(u, delta, a, b, c)


def _as_given(x: Tensor) -> torch.autocast:
    """Where nothing is cast on x's device."""
    return torch.autocast(x.device.type, enabled=False)


def scans_in_parallel(u: Tensor, b: Tensor) -> bool:
    """Whether the parallel scan is the faster way, by the sizes alone (R, T, G, D and N)."""
    rows, steps, groups, channels = u.shape
    return steps > LONGEST_LOOP and rows * groups * channels * b.shape[-1] <= FEW_STATES


class _Step(NamedTuple):
    """What one step takes: u and delta (R, G, D), b and c (R, G, N)."""

    u: Tensor
    delta: Tensor
    b: Tensor
    c: Tensor

    def decay(self, a: Tensor) -> Tensor:
        """(R, G, N, D): what is left of the state before."""
        return (a * self.delta.unsqueeze(-2)).exp()

    def enters(self) -> Tensor:
        """(R, G, N, D): what comes to the state."""
        return self.b.unsqueeze(-1) * (self.delta * self.u).unsqueeze(-2)

    def read(self, state: Tensor) -> Tensor:
        """(R, G, D) of a state (R, G, N, D)."""
        return torch.matmul(self.c.unsqueeze(-2), state).squeeze(-2)

    def gradients(self, state: Tensor, wanted: Tensor, grad: Tensor) -> dict[str, Tensor]:
        """Of u, delta (what comes by the decay left out), b and c; `wanted` is the state's gradient, `grad` that of y."""
        entered = torch.matmul(self.b.unsqueeze(-2), wanted).squeeze(-2)  # of delta u
        of_b = (wanted * (self.delta * self.u).unsqueeze(-2)).sum(-1)  # a product of thin matrices takes longer
        of_c = (state * grad.unsqueeze(-2)).sum(-1)
        return {"u": entered * self.delta, "delta": entered * self.u, "b": of_b, "c": of_c}


def _steps(u: Tensor, delta: Tensor, b: Tensor, c: Tensor) -> list[_Step]:
    return [_Step(*parts) for parts in zip(u.unbind(1), delta.unbind(1), b.unbind(1), c.unbind(1), strict=True)]


def scan(decay: Tensor, enters: Tensor) -> Tensor:
    """Every state h_t = decay_t h_(t-1) + enters_t, h before the first step 0; all three (R, T, ...); logarithmic depth.

    Neighbouring steps are joined in pairs, the half as long sequence of pairs is scanned, and the states between follow.
    """
    steps = enters.shape[1]
    if steps == 1:
        return enters
    if steps % 2:
        before = scan(decay[:, :-1], enters[:, :-1])
        return torch.cat((before, torch.addcmul(enters[:, -1:], decay[:, -1:], before[:, -1:])), 1)
    (even_decay, odd_decay), (even, odd) = (x.unflatten(1, (steps // 2, 2)).unbind(2) for x in (decay, enters))
    at_odd = scan(even_decay * odd_decay, torch.addcmul(odd, odd_decay, even))
    before = torch.cat((torch.zeros_like(even[:, :1]), at_odd[:, :-1]), 1)
    at_even = torch.addcmul(even, even_decay, before)
    return torch.stack((at_even, at_odd), 2).flatten(1, 2)


def _outputs(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, *, in_parallel: bool) -> Tensor:
    """y of plain operations; the loop keeps no state longer than it is needed."""
    if in_parallel:
        whole = _Step(u, delta, b, c)
        return whole.read(scan(whole.decay(a), whole.enters()))
    first, *later = _steps(u, delta, b, c)
    state = first.enters()
    y = [first.read(state)]
    for step in later:
        state = torch.addcmul(step.enters(), step.decay(a), state)
        y.append(step.read(state))
    return torch.stack(y, 1)


def _in_pieces(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """`_outputs` in parallel, or by the loop a few rows (of a large map: a few groups) at a time."""
    if scans_in_parallel(u, b):
        return _outputs(u, delta, a, b, c, in_parallel=True)
    groups = max(1, _VALUES_AT_ONCE // (u.shape[-1] * b.shape[-1]))
    if u.shape[2] > groups and len(a) == 1:
        some = zip(*(x.split(groups, 2) for x in (u, delta, b, c)), strict=True)
        return torch.cat([_in_pieces(of_u, of_delta, a, of_b, of_c) for of_u, of_delta, of_b, of_c in some], 2)
    parts = [_outputs(u[r], delta[r], a, b[r], c[r], in_parallel=False) for r in _pieces(u, b)]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _pieces(u: Tensor, b: Tensor) -> Iterator[slice]:
    """Rows of which one step's states fit in the cache."""
    rows, _, groups, channels = u.shape
    size = max(1, _VALUES_AT_ONCE // (groups * channels * b.shape[-1]))
    return (slice(first, first + size) for first in range(0, max(rows, 1), size))


class _Scan(torch.autograd.Function):
    """The scan with its gradients; keeps its inputs alone between the passes."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        ctx.save_for_backward(u, delta, a, b, c)
        return _in_pieces(u, delta, a, b, c)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        u, delta, a, b, c = ctx.saved_tensors
        with _as_given(u):
            if scans_in_parallel(u, b):
                return _gradients_by_scan(u, delta, a, b, c, grad)
            parts = [_gradients_by_loop(u[r], delta[r], a, b[r], c[r], grad[r]) for r in _pieces(u, b)]
        of_u, of_delta, of_a, of_b, of_c = zip(*parts, strict=True)
        return torch.cat(of_u), torch.cat(of_delta), torch.stack(of_a).sum(0), torch.cat(of_b), torch.cat(of_c)


def _gradients_by_loop(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """Gradients of u, delta, a, b and c for some rows, from the gradient of y (R, T, G, D)."""
    steps = _steps(u, delta, b, c)
    decays = [step.decay(a) for step in steps]
    states = [steps[0].enters()]
    for step, decay in zip(steps[1:], decays[1:], strict=True):
        states.append(torch.addcmul(step.enters(), decay, states[-1]))
    wanted, of_a, parts = torch.zeros_like(states[0]), torch.zeros_like(states[0]), []
    for t in range(len(steps) - 1, -1, -1):
        wanted.addcmul_(steps[t].c.unsqueeze(-1), grad[:, t].unsqueeze(-2))
        part = steps[t].gradients(states[t], wanted, grad[:, t])
        wanted.mul_(decays[t])  # from here on: what step t and those after it want of the state before
        if t:
            of_exponent = states[t - 1] * wanted
            of_a.addcmul_(of_exponent, steps[t].delta.unsqueeze(-2))
            part["delta"] += (of_exponent * a).sum(-2)
        parts.append(part)
    of_u, of_delta, of_b, of_c = (torch.stack([part[name] for part in reversed(parts)], 1) for name in _Step._fields)
    return of_u, of_delta, of_a.sum_to_size(a.shape), of_b, of_c


def _gradients_by_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """The same by two parallel scans, the second from the last step to the first."""
    whole = _Step(u, delta, b, c)
    decay = whole.decay(a)
    states = scan(decay, whole.enters())
    wanted = scan(decay.flip(1).roll(1, 1), (c.unsqueeze(-1) * grad.unsqueeze(-2)).flip(1)).flip(1)
    part = whole.gradients(states, wanted, grad)
    of_exponent = wanted[:, 1:] * decay[:, 1:] * states[:, :-1]
    part["delta"][:, 1:] += (of_exponent * a).sum(-2)
    of_a = (of_exponent * delta[:, 1:].unsqueeze(-2)).sum((0, 1))
    return part["u"], part["delta"], of_a.sum_to_size(a.shape), part["b"], part["c"]
