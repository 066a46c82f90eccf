"""VSS blocks: a selective scan over an image along four paths.

Liu et al., VMamba: visual state space model, arXiv:2401.10166, figures 2 and 3 (its first form, with a gate and no feed-forward
part, as VMRNN uses it).

Legend: R rows, r × c places of the image, L = r · c, W width, D channels (expansion · W).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models._layers.mamba import Selective


def paths(images: Tensor) -> Tensor:
    """(R, r, c, D) read row by row, column by column, and both from the end: (R, L, 4, D)."""
    forth = torch.stack((images.flatten(1, 2), images.transpose(1, 2).flatten(1, 2)), 2)
    return torch.cat((forth, forth.flip(1)), 2)


def merged(read: Tensor, rows: int, columns: int) -> Tensor:
    """What the four paths (R, L, 4, D) say of each place, summed: (R, r, c, D)."""
    forth, back = read.chunk(2, 2)
    by_row, by_column = (forth + back.flip(1)).unbind(2)
    return by_row.unflatten(1, (rows, columns)) + by_column.unflatten(1, (columns, rows)).transpose(1, 2)


class SS2D(nn.Module):
    """Gated selective scan over an image of `places` = r · c: (R, r, c, W) to the same; each path has weights of its own."""

    def __init__(self, width: int, *, state: int, expansion: int, places: int) -> None:
        super().__init__()
        channels = expansion * width
        self.enter = nn.Linear(width, 2 * channels, bias=False)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.selective = Selective(channels, state, rank=math.ceil(width / 16), directions=4, steps=places)
        self.norm = nn.LayerNorm(channels)
        self.leave = nn.Linear(channels, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        u, gate = self.enter(h).chunk(2, -1)
        u = functional.silu(self.conv(u.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        y = merged(self.selective(paths(u)), h.shape[1], h.shape[2])
        return self.leave(self.norm(y) * functional.silu(gate))


class VSS(nn.Module):
    """h + SS2D(norm(h)). With `two` inputs both are normalised and mapped to one width before the scan."""

    def __init__(self, width: int, *, state: int, expansion: int, places: int, two: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.join = nn.Linear(2 * width, width) if two else None
        self.scan = SS2D(width, state=state, expansion=expansion, places=places)

    def forward(self, h: Tensor, other: Tensor) -> Tensor:
        """h, other and the answer (R, r, c, W); `other` is read only by a block of two inputs."""
        seen = self.norm(h)
        if self.join is not None:
            seen = self.join(torch.cat((seen, self.norm(other)), -1))
        return h + self.scan(seen)
