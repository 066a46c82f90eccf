"""VMRNN: a recurrent cell whose gates come from VSS blocks, selective scans over the frame along four paths.

Tang et al., VMRNN: integrating vision Mamba and LSTM for efficient and accurate spatiotemporal forecasting, CVPR workshops 2024.
VMRNN-B is one such cell; VMRNN-D has cells on the way down to a coarser image and up again. Here the forecast of all target
steps is read from the place of the centre after the last step (the paper writes whole frames, one after the other), it corrects a
linear map of the patch, and the sizes are small enough for a CPU; `b-paper` and `d-paper` have those of the authors' code. Tokens
must divide the patch: it is padded with zeros where they do not (11 to 12, and to 16), and `notes` says so.

Legend: B windows, T steps, F features, K edge of the patch, r × c places of a frame of tokens, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers import patch
from models._layers.frame import RESIDUALS, Embed, Head, residual_option
from models._layers.vss import VSS


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of VMRNN."""

    token: int = option(4, "edge of a token in nodes", low=1, high=16)
    width: int = option(32, "features of a token, twice as many at each coarser level", low=2, high=1024)
    levels: int = option(0, "coarser levels: 0 is VMRNN-B, the paper's VMRNN-D has 2", low=0, high=3)
    depth: int = option(1, "VSS blocks of the cell (of the finest cells, where there are levels)", low=1, high=24)
    inner_depth: int = option(1, "VSS blocks of the cells at coarser levels", low=1, high=24)
    state: int = option(4, "states of a channel", low=1, high=256)
    expansion: int = option(1, "channels of a scan for each of the width", low=1, high=8)
    residual: str = residual_option("linear")


class Tokens(nn.Module):
    """Frames padded to whole tokens, each token mapped to the width: h (B, T, r, c, W)."""

    def __init__(self, problem: Problem, token: int, side: int, width: int) -> None:
        super().__init__()
        self.problem, self.token, self.side = problem, token, side
        self.map = nn.Linear(token * token * len(problem.features), width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        frames = patch.padded(patch.frames(x, self.problem), self.side)
        places = (self.side // self.token, self.token)
        cut = frames.unflatten(4, places).unflatten(3, places)  # (B, T, F, r, token, c, token)
        return self.norm(self.map(cut.permute(0, 1, 3, 5, 4, 6, 2).flatten(4)))


class Cell(nn.Module):
    """The VSS blocks decide one gate: keep = σ(o), memory' = keep · (memory + tanh(o)), h' = keep · tanh(memory').

    The first block joins the input with h; of those after it every second one sees the input again.
    """

    def __init__(self, width: int, depth: int, places: int, options: Options) -> None:
        super().__init__()
        o = options
        self.layers = nn.ModuleList(
            VSS(width, state=o.state, expansion=o.expansion, places=places, two=number % 2 == 0) for number in range(depth)
        )

    def forward(self, x: Tensor, before: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """h and memory after a step, from its input and those before; all (B, r, c, W)."""
        first, *later = self.layers
        out = first(x, before[0])
        for layer in later:
            out = layer(out, x)
        keep = out.sigmoid()
        memory = keep * (before[1] + out.tanh())
        return keep * memory.tanh(), memory


class Merge(nn.Module):
    """Places two by two become one of twice the width: (B, r, c, W) to (B, r/2, c/2, 2W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.map = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        cut = h.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, r/2, 2, c/2, 2, W)
        return self.map(self.norm(cut.permute(0, 1, 3, 2, 4, 5).flatten(3)))


class Expand(nn.Module):
    """Each place becomes two by two of half the width: (B, r, c, W) to (B, 2r, 2c, W/2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(width // 2)

    def forward(self, h: Tensor) -> Tensor:
        cut = self.map(h).unflatten(3, (2, 2, -1)).permute(0, 1, 3, 2, 4, 5)  # (B, r, 2, c, 2, W/2)
        return self.norm(cut.flatten(3, 4).flatten(1, 2))


def itinerary(options: Options) -> list[tuple[int, int, type[nn.Module]]]:
    """The cells in the order of a step: level (0 is the finest), VSS blocks, and what brings h to the next cell."""
    levels, depth, inner = options.levels, options.depth, options.inner_depth
    if not levels:
        return [(0, depth, nn.Identity)]
    down = [(level, inner if level else depth, Merge) for level in range(levels)]
    return [*down, *((level, inner if level > 1 else depth, Expand) for level in range(levels, 0, -1))]


class Core(nn.Module):
    """Steps through the frames of tokens: h (B, T, r, c, W) to the features of the centre's token after the last (B, W).

    `edge` counts the tokens along a frame. The core holds nearly all operations and cannot be divided: at each step every cell
    needs what it said at the step before.
    """

    def __init__(self, edge: int, centre: int, options: Options) -> None:
        super().__init__()
        o, self.centre = options, centre
        self.cells, self.scales = nn.ModuleList(), nn.ModuleList()
        for level, depth, scale in itinerary(o):
            width, places = o.width * 2**level, (edge // 2**level) ** 2
            self.cells.append(Cell(width, depth, places, o))
            self.scales.append(scale(width))

    def sequence(self, state: State) -> Tensor:
        """(B, T, W) of the centre's token: step t has seen no later step."""
        seen: list[Tensor] = []
        memories: list[tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        for frame in state["h"].unbind(1):
            h = frame
            for i, (cell, scale) in enumerate(zip(self.cells, self.scales, strict=True)):
                memories[i] = after = cell(h, memories[i] or (torch.zeros_like(h), torch.zeros_like(h)))
                h = scale(after[0])
            seen.append(h[:, self.centre, self.centre])
        return torch.stack(seen, 1)

    def forward(self, state: State) -> State:
        return {**state, "h": self.sequence(state)[:, -1]}


class Network(_contract.Network):
    """Cells of VSS blocks over the frames of a patch, or over a single site as a patch of one."""

    title = "VMRNN"
    paper = "Tang et al., VMRNN: integrating vision Mamba and LSTM for spatiotemporal forecasting, CVPRW 2024, arXiv:2403.16536"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site")
    presets: ClassVar = {
        "b": {"levels": 0},
        "d": {"levels": 2, "width": 16, "state": 2},
        "b-paper": {"token": 2, "width": 128, "depth": 6, "state": 16, "expansion": 2, "residual": "none"},
        "d-paper": {
            **{"token": 2, "width": 128, "levels": 2, "depth": 2, "inner_depth": 6},
            **{"state": 16, "expansion": 2, "residual": "none"},
        },
    }
    causal = True

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        self.edge = patch.edge(problem)
        whole = options.token * 2**options.levels  # nodes that a place of the coarsest frame covers
        self.side = -(-self.edge // whole) * whole
        centre = ((self.side - self.edge) // 2 + self.edge // 2) // options.token
        tokens = Tokens(problem, options.token, self.side, options.width)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(problem, tokens, residual=options.residual))
        self.blocks.add_module("core", Core(self.side // options.token, centre, options))
        self.blocks.add_module("head", Head(problem, options.width, residual=options.residual))

    @property
    def notes(self) -> Mapping[str, str]:
        """How the patch was padded to whole tokens."""
        if self.side == self.edge:
            return {}
        return {"padding": f"patch {self.edge}×{self.edge} padded to {self.side}×{self.side}"}

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "token": trial.suggest_categorical("token", (2, 4)),
            "width": trial.suggest_categorical("width", (16, 32, 64)),
            "depth": trial.suggest_int("depth", 1, 3),
            "state": trial.suggest_categorical("state", (1, 4, 16)),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
