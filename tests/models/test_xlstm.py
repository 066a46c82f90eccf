"""xLSTM's cells against the paper's recurrences, written out without a stabiliser in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import xlstm


def recurrent(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    """mLSTM step by step: C' = f C + i v k', n' = f n + i k, h = C' q / max(|n'·q|, 1), keys scaled; (B, H, T, E)."""
    batch, heads, steps, width = q.shape
    memory, norm = torch.zeros(batch, heads, width, width).double(), torch.zeros(batch, heads, width).double()
    hidden = []
    for t in range(steps):
        forget, take, key = f[:, :, t].sigmoid(), i[:, :, t].exp(), k[:, :, t] / width**0.5
        memory = forget[..., None, None] * memory + take[..., None, None] * v[:, :, t, :, None] * key[:, :, None, :]
        norm = forget[..., None] * norm + take[..., None] * key
        scale = (norm * q[:, :, t]).sum(-1).abs().clamp_min(1.0)
        hidden.append((memory @ q[:, :, t, :, None]).squeeze(-1) / scale[..., None])
    return torch.stack(hidden, 2)


def draw(steps: int) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(steps)
    qkv = [torch.randn(3, 2, steps, 4, generator=rng, dtype=torch.float64) for _ in range(3)]
    return (*qkv, *(torch.randn(3, 2, steps, generator=rng, dtype=torch.float64) * 2 for _ in range(2)))


@pytest.mark.parametrize("steps", [1, 6, 40])
def test_the_parallel_matrix_memory_equals_its_recurrence(steps):
    given = draw(steps)
    torch.testing.assert_close(xlstm.matrix_memory(*given), recurrent(*given), rtol=1e-5, atol=1e-6)


def test_matrix_memory_recalls_the_value_that_was_stored_under_a_key():
    """Orthogonal keys, open gates: the query of the first key reads the first value, scaled by max(|n·q|, 1) = 2."""
    k = torch.eye(4)[None, None, :3] * 2
    v = torch.tensor([[3.0, 1, 0, 0], [0, 5, 0, 0], [0, 0, 7, 0]])[None, None]
    q = k[:, :, [0, 0, 0]]
    read = xlstm.matrix_memory(q, k, v, torch.zeros(1, 1, 3), torch.full((1, 1, 3), 50.0))
    torch.testing.assert_close(read[0, 0, 2], v[0, 0, 0])  # 2·2/√4 = 2 both above and below the line


@pytest.mark.parametrize("size", [200.0, -200.0])
def test_exponential_gates_do_not_overflow(size):
    q, k, v, i, f = (part.float() for part in draw(8))
    assert xlstm.matrix_memory(q, k, v, i + size, f).isfinite().all()
    cell = xlstm.ScalarMemory(2, 4)
    gates = torch.randn(2, 3, 8, 16)
    gates[..., :4] += size
    h = cell(gates)
    h.sum().backward()
    assert h.isfinite().all()
    assert cell.again.grad.isfinite().all()


def test_scalar_memory_keeps_to_its_recurrence():
    """c' = f c + i z, n' = f n + i, h = o c' / n' with plain exponentials; cells mix within their head only."""
    torch.manual_seed(0)
    cell, gates = xlstm.ScalarMemory(2, 3).double(), torch.randn(2, 4, 7, 12, dtype=torch.float64)
    c, n, h = (torch.zeros(2, 4, 3, dtype=torch.float64) for _ in range(3))
    expected = []
    for t in range(7):
        mixed = torch.stack([h[head] @ cell.again[head] for head in range(2)])
        i, f, z, o = (gates[:, :, t] + mixed).chunk(4, 2)
        c = f.sigmoid() * c + i.exp() * z.tanh()
        n = f.sigmoid() * n + i.exp()
        h = o.sigmoid() * c / n
        expected.append(h)
    torch.testing.assert_close(cell(gates), torch.stack(expected, 2).permute(1, 2, 0, 3))


def test_heads_do_not_mix():
    torch.manual_seed(0)
    cell, gates = xlstm.ScalarMemory(2, 3), torch.randn(2, 4, 5, 12)
    other = gates.clone()
    other[1] += 1.0
    torch.testing.assert_close(cell(other)[:, :, 0], cell(gates)[:, :, 0])
    assert not torch.equal(cell(other)[:, :, 1], cell(gates)[:, :, 1])


def test_layout_names_the_blocks_in_order():
    core = xlstm.Core(3, xlstm.Options(layout="msm"))
    assert [type(layer).__name__ for layer in core.layers] == ["MLSTM", "SLSTM", "MLSTM"]


@pytest.mark.parametrize("layout", ["", "mx", "MS"])
def test_other_letters_are_refused(layout):
    with pytest.raises(ValueError, match="layout must be letters m"):
        xlstm.Options(layout=layout)


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="width must be a multiple of heads: 30 is none of 4"):
        xlstm.Options(width=30)
