"""Graphs of sites: which are neighbours, by a grid or by correlation, and the polynomials that convolutions over them use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def grid_adjacency(rows: int, columns: int) -> Tensor:
    """(nodes, nodes) of a row-major grid: 1 to the four sides, 1/√2 to the four corners, the inverse of their distance."""
    row, column = torch.arange(rows * columns) // columns, torch.arange(rows * columns) % columns
    down, across = (place[:, None] - place[None, :] for place in (row, column))
    distance = (down.square() + across.square()).float().sqrt()
    return torch.where((distance > 0) & (distance < 2), 1 / distance.clamp(min=1), 0.0)


def weighted(edges: Iterable[Sequence[float]], nodes: int) -> Tensor:
    """(nodes, nodes) symmetric: the larger weight of (node, other node, weight) and its way back; 0 where there is no edge."""
    found = torch.zeros(nodes, nodes)
    for node, other, weight in edges:
        found[int(node), int(other)] = weight
    return torch.maximum(found, found.T)


def nearest(correlation: Tensor, count: int) -> Tensor:
    """(nodes, nodes) symmetric: (1 + correlation) / 2 from each node to the `count` others that it correlates with most."""
    nodes = len(correlation)
    likeness = ((1 + correlation) / 2).fill_diagonal_(-1.0)
    chosen = likeness.topk(min(count, nodes - 1), 1).indices
    kept = torch.zeros_like(likeness).scatter_(1, chosen, 1.0)
    return torch.where(torch.maximum(kept, kept.T) > 0, likeness, 0.0)


def chebyshev(adjacency: Tensor, order: int) -> Tensor:
    """T_0 … T_(order - 1) of the scaled Laplacian: (order, nodes, nodes).

    The Laplacian is the symmetric normalised one, and its largest eigenvalue is taken as 2, its bound, so that the scaled
    Laplacian is -D^-½ A D^-½ (Defferrard et al., NeurIPS 2016).
    """
    degree = adjacency.sum(1)
    root = torch.where(degree > 0, degree.clamp(min=1e-12).rsqrt(), 0.0)
    scaled = -root[:, None] * adjacency * root[None, :]
    found = [torch.eye(len(adjacency), dtype=adjacency.dtype), scaled]
    while len(found) < order:
        found.append(2 * scaled @ found[-1] - found[-2])
    return torch.stack(found[:order])


class Correlation:
    """Correlation of what nodes do within a window: their targets less the window's mean, so that the daily wave says little."""

    def __init__(self, nodes: int) -> None:
        self.products = torch.zeros(nodes, nodes, dtype=torch.float64)

    def add(self, targets: Tensor) -> None:
        """Add windows (batch, history, nodes, targets)."""
        moved = targets - targets.mean(1, keepdim=True) if targets.shape[1] > 1 else targets
        rows = moved.permute(0, 1, 3, 2).flatten(0, 2).double().cpu()
        self.products.addmm_(rows.T, rows)

    def matrix(self) -> Tensor:
        """(nodes, nodes) float32; 0 where a node never moves."""
        spread = self.products.diagonal().sqrt()
        scale = torch.where(spread > 0, spread, torch.inf)
        return (self.products / scale[:, None] / scale[None, :]).float()
