"""Patches as images, for networks that look at a neighbourhood as a video: one frame a step.

Legend: B windows, T steps, F features, K edge of the patch (1 for a single site), C channels.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from models._contract import Problem


def edge(problem: Problem) -> int:
    """K: nodes along one side of the patch, 1 for a single site.

    Raises:
        ValueError: nodes that are no square.
    """
    side = round(problem.nodes**0.5)
    if side * side != problem.nodes:
        raise ValueError(f"a patch needs K·K nodes, found {problem.nodes}; give this network inputs 'patch' or 'site'")
    return side


def frames(x: Tensor, problem: Problem) -> Tensor:
    """x (B, T, K·K, F) as frames (B, T, F, K, K): a view, channels last in memory as convolutions like it."""
    side = edge(problem)
    return x.unflatten(2, (side, side)).permute(0, 1, 4, 2, 3)


def centre(images: Tensor) -> Tensor:
    """The middle pixel of (..., K, K): (...)."""
    return images[..., images.shape[-2] // 2, images.shape[-1] // 2]


def crop(images: Tensor, side: int) -> Tensor:
    """The middle `side` × `side` pixels of (..., K, K); both odd or both even."""
    row, column = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    return images[..., row : row + side, column : column + side]


def padded(images: Tensor, side: int) -> Tensor:
    """(..., K, K) with zeros around it, (..., side, side); an odd rest goes to the right and to the bottom."""
    before = (side - images.shape[-1]) // 2
    after = side - images.shape[-1] - before
    return functional.pad(images, (before, after, before, after)) if before or after else images
