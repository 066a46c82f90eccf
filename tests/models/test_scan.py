"""The selective scan equals its recurrence, step by step; so do its gradients; Mamba sees no later step."""

from __future__ import annotations

import math

import pytest
import torch

from models._layers import scan
from models._layers.mamba import Mamba, Selective

WAYS = pytest.mark.parametrize("in_parallel", [False, True], ids=["loop", "parallel"])


@pytest.fixture
def forced(monkeypatch):
    def force(in_parallel: bool) -> None:
        monkeypatch.setattr(scan, "scans_in_parallel", lambda *_: in_parallel)

    return force


def recurrence(u, delta, a, b, c):
    """The definition: h = exp(delta a) h + delta b u, y = c h, written with no trick."""
    state, out = torch.zeros(()), []
    for t in range(u.shape[1]):
        decay = torch.exp(delta[:, t, :, None, :] * a)
        state = decay * state + delta[:, t, :, None, :] * b[:, t, :, :, None] * u[:, t, :, None, :]
        out.append((c[:, t, :, :, None] * state).sum(-2))
    return torch.stack(out, 1)


def draw(rows, steps, groups, channels=3, states=4, *, each_group=False):
    rng = torch.Generator().manual_seed(steps)

    def normal(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    u, delta = normal(rows, steps, groups, channels), normal(rows, steps, groups, channels).exp() * 0.3
    a = -normal(groups if each_group else 1, states, channels).exp()
    b, c = normal(rows, steps, groups, states), normal(rows, steps, groups, states)
    return [x.requires_grad_() for x in (u, delta, a, b, c)]


@WAYS
def test_three_steps_by_hand(forced, in_parallel):
    """One channel, one state, a = -1, delta = ln 2: every state halves. 4; 2 + 2·ln 2 …"""
    forced(in_parallel)
    half = torch.full((1, 3, 1, 1), math.log(2))
    u = torch.tensor([4.0, 2.0, 0.0]).reshape(1, 3, 1, 1) / math.log(2)
    b, c = torch.ones(1, 3, 1, 1), torch.tensor([1.0, 1.0, 10.0]).reshape(1, 3, 1, 1)
    y = scan.selective_scan(u, half, torch.full((1, 1, 1), -1.0), b, c)
    assert y.flatten().tolist() == pytest.approx([4.0, 4.0, 20.0])  # 4; 4/2 + 2; 4/2 read ten times


@WAYS
@pytest.mark.parametrize(
    ("steps", "groups", "each_group"), [(1, 1, False), (2, 4, True), (7, 3, False), (12, 1, False), (21, 4, True)]
)
def test_both_ways_equal_the_recurrence_and_its_gradients(forced, in_parallel, steps, groups, each_group):
    forced(in_parallel)
    given = draw(5, steps, groups, each_group=each_group)
    weight = torch.randn(5, steps, groups, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    expected, y = recurrence(*given), scan.selective_scan(*given)
    torch.testing.assert_close(y, expected)
    for found, right in zip(torch.autograd.grad(y, given, weight), torch.autograd.grad(expected, given, weight), strict=True):
        torch.testing.assert_close(found, right)
    with torch.no_grad():
        torch.testing.assert_close(scan.selective_scan(*given), expected)


def test_pieces_of_rows_and_groups_change_nothing(monkeypatch):
    given = draw(9, 5, 7)
    expected = recurrence(*given)
    right = torch.autograd.grad(expected.sum(), given)
    for values in (1, 12, 12 * 7 * 2):  # a single group, a few groups, two rows at a time
        monkeypatch.setattr(scan, "_VALUES_AT_ONCE", values)
        y = scan.selective_scan(*given)
        torch.testing.assert_close(y, expected)
        for found, true in zip(torch.autograd.grad(y.sum(), given), right, strict=True):
            torch.testing.assert_close(found, true)
        with torch.no_grad():
            torch.testing.assert_close(scan.selective_scan(*given), expected)


def test_the_way_follows_from_the_sizes():
    def parallel(rows, steps):
        return scan.scans_in_parallel(torch.zeros(rows, steps, 1, 64), torch.zeros(rows, steps, 1, 16))

    assert not parallel(1, scan.LONGEST_LOOP)
    assert parallel(1, scan.LONGEST_LOOP + 1)
    assert not parallel(1024, 144)


@pytest.mark.parametrize("steps", [6, 13])
def test_both_ways_export_with_a_free_number_of_rows(steps):
    """6 steps are exported as a loop, 13 as a parallel scan."""
    torch.manual_seed(0)
    block = Mamba(4, state=2).eval()
    program = torch.export.export(
        block, (torch.randn(2, steps, 1, 4),), dynamic_shapes=({0: torch.export.Dim("rows")},), strict=False
    )
    h = torch.randn(5, steps, 1, 4)
    torch.testing.assert_close(program.module()(h), block(h), rtol=1e-5, atol=1e-6)


def test_mamba_treats_each_position_alone_and_sees_no_later_step():
    torch.manual_seed(0)
    block, h = Mamba(8), torch.randn(2, 10, 3, 8)
    y = block(h)
    torch.testing.assert_close(block(h[:, :, 1:2]), y[:, :, 1:2])
    later = h.clone()
    later[:, 6:] += 1.0
    torch.testing.assert_close(block(later)[:, :6], y[:, :6])
    assert bool((block(later)[:, 6:] - y[:, 6:]).abs().amin() > 0)


def test_mamba_has_the_papers_parameters():
    """Width 32: 2·32·64 in, 64·5 convolution, 64·(2 + 2·16) selection, 2·64 + 64 step size, 64·16 rates, 64 skip, 64·32 out."""
    assert sum(p.numel() for p in Mamba(32).parameters()) == 4096 + 320 + 2176 + 192 + 1024 + 64 + 2048


def test_step_sizes_begin_between_the_papers_bounds():
    block = Selective(64, 16, rank=2)
    first = torch.nn.functional.softplus(block.delta_bias)
    assert bool((first > 0.999e-3).all() and (first < 0.1001).all())
    assert (-block.log_rates.exp())[0, :, 0].tolist() == pytest.approx([-1.0 - n for n in range(16)])
