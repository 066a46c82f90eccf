"""What the transformers share: attention heads around any mechanism, and the layers of encoders and decoders.

A mechanism is a module (queries, keys, values) -> seen, each (rows, heads, steps, width of a head).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def check_heads(width: int, heads: int) -> None:
    """Refuse heads of unequal width.

    Raises:
        ValueError: the heads do not divide the width.
    """
    if width % heads:
        raise ValueError(f"width must be a multiple of heads: {width} is none of {heads}")


class Full(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017): every query sees every key, or, if `causal`, no later one.

    Without dropout of its own: with it torch leaves the fused path on a CPU.
    """

    def __init__(self, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


class Heads(nn.Module):
    """Projects to heads, lets the mechanism look, and projects back: (rows, steps, width) to the same.

    `query_bias` is left out where the mechanism ignores what all keys have in common, or no gradient would reach it.
    """

    def __init__(self, width: int, heads: int, mechanism: nn.Module, *, query_bias: bool = True) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.mechanism = heads, mechanism
        self.query = nn.Linear(width, width, bias=query_bias)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        """What the steps of h (rows, steps, width) see in `seen` (rows, other steps, width)."""
        q = self.query(h).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(seen).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(self.mechanism(q, k, v).transpose(1, 2).flatten(2))


def feedforward(width: int, hidden: int, dropout: float, *, bias: bool = True) -> nn.Sequential:
    """Two linear maps around a GELU, applied to each step; dropout once, at the end: on a CPU it costs as much as a map."""
    maps = nn.Linear(width, hidden, bias=bias), nn.Linear(hidden, width, bias=bias)
    return nn.Sequential(maps[0], nn.GELU(), maps[1], nn.Dropout(dropout))


class Layer(nn.Module):
    """h + attention(norm h), then h + feedforward(norm h): normalised first, which trains without a warm-up."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, mechanism: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Heads(width, heads, mechanism)
        self.drop = nn.Dropout(dropout)
        self.feed = nn.Sequential(nn.LayerNorm(width), *feedforward(width, hidden, dropout))

    def forward(self, h: Tensor) -> Tensor:
        """(rows, steps, width) to the same."""
        normal = self.norm(h)
        h = h + self.drop(self.attention(normal, normal))
        return h + self.feed(h)


class CrossLayer(nn.Module):
    """A decoder's layer: attention among its own steps, then to what the encoder left, then feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, own: nn.Module, cross: nn.Module) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.own, self.cross = Heads(width, heads, own), Heads(width, heads, cross)
        self.drop = nn.Dropout(dropout)
        self.feed = nn.Sequential(nn.LayerNorm(width), *feedforward(width, hidden, dropout))

    def forward(self, h: Tensor, encoded: Tensor) -> Tensor:
        """h (rows, steps, width), encoded (rows, other steps, width), to the shape of h."""
        normal = self.norms[0](h)
        h = h + self.drop(self.own(normal, normal))
        h = h + self.drop(self.cross(self.norms[1](h), encoded))
        return h + self.feed(h)
