"""STN: 3D convolutions and ConvLSTMs over the same frames, fused block by block, then dense layers to the centre pixel.

Zhang and Patras, Long-term mobile traffic forecasting using deep spatio-temporal neural networks, MobiHoc 2018. The authors'
own sizes (fused maps concatenated, dense layers of 4096 and 1024) come to 70 million parameters at 6 frames of 11 × 11. Preset
`paper` is the reduced network that HiSTM's authors publish their figures of: two blocks of three convolutions (instance norm
after the first) beside a ConvLSTM, averaged, 3 channels, dense layers of 256 and 64: 576,755 parameters at 6 × 11 × 11.
Here the default drops the instance norm, which takes away the level of the window, and has one convolution a block, which a CPU
trains in time; the dense layers also see calendar and lags, all steps come from one head, and it corrects the last value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.convlstm import ConvLSTM, taps
from models._layers.frame import RESIDUALS, Context, Embed, Head, residual_option
from models._layers.patch import edge, frames


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of STN."""

    channels: int = option(4, "feature maps of every block", low=1, high=256)
    blocks: int = option(2, "blocks of 3D convolutions beside a ConvLSTM", low=1, high=6)
    convolutions: int = option(1, "3D convolutions of a block, one after the other", low=1, high=5)
    kernel: int = option(3, "pixels along a kernel's edge (and steps along its time)", choices=(1, 3, 5, 7))
    norm: str = option("none", "after a block's first convolution: nothing, or instance norm", choices=("none", "instance"))
    dense: int = option(128, "width of the first dense layer; the second has a quarter of it", low=4, high=4096)
    dropout: float = option(0.0, "share of the first dense layer dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")


class Frames(nn.Module):
    """Encoder: the patch as frames (batch, history, features, K, K)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        return frames(x, self.problem).clone(memory_format=torch.contiguous_format)


class Fusion(nn.Module):
    """(batch, history, inputs, K, K) to as many frames of `channels`: the mean of 3D convolutions and a ConvLSTM."""

    def __init__(self, inputs: int, side: int, options: Options) -> None:
        super().__init__()
        pixels = taps(options.kernel, side)
        kernel, around = (options.kernel, pixels, pixels), (options.kernel // 2, pixels // 2, pixels // 2)
        self.convs = nn.Sequential()
        for i in range(options.convolutions):
            self.convs.append(nn.Conv3d(options.channels if i else inputs, options.channels, kernel, padding=around))
            if i == 0 and options.norm == "instance":
                self.convs.append(nn.InstanceNorm3d(options.channels))
            self.convs.append(nn.ReLU())
        self.lstm = ConvLSTM(inputs, options.channels, pixels)

    def forward(self, h: Tensor) -> Tensor:
        video = h.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)  # twice as fast with few channels
        return 0.5 * (self.convs(video).transpose(1, 2) + self.lstm(h))


class Core(nn.Module):
    """h (batch, history, features, K, K), beside the context, to (batch, dense / 4)."""

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__()
        side, channels = edge(problem), options.channels
        widths = [len(problem.features)] + [channels] * options.blocks
        self.fusions = nn.Sequential(*(Fusion(width, side, options) for width in widths[:-1]))
        flat = channels * problem.history * problem.nodes + Context(problem).width
        self.out = options.dense // 4
        self.dense = nn.Sequential(
            nn.Linear(flat, options.dense),
            nn.ReLU(),
            nn.Dropout(options.dropout),
            nn.Linear(options.dense, self.out),
            nn.ReLU(),
        )

    def forward(self, state: State) -> State:
        flat = self.fusions(state["h"]).flatten(1)
        if "context" in state:
            flat = torch.cat((flat, state["context"]), 1)
        return {**state, "h": self.dense(flat)}


class Network(_contract.Network):
    """Spatio-temporal network: what moves within the patch by 3D convolutions, what lasts by ConvLSTMs."""

    title = "STN"
    paper = "Zhang and Patras, Long-term mobile traffic forecasting using deep spatio-temporal neural networks, MobiHoc 2018"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site")
    presets: ClassVar = {
        "paper": {"channels": 3, "blocks": 2, "convolutions": 3, "norm": "instance", "dense": 256, "residual": "none"}
    }

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        core = Core(problem, options)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(problem, Frames(problem), residual=options.residual))
        self.blocks.add_module("core", core)
        self.blocks.add_module("head", Head(problem, core.out, residual=options.residual))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "channels": trial.suggest_categorical("channels", (3, 4, 8)),
            "blocks": trial.suggest_int("blocks", 1, 3),
            "convolutions": trial.suggest_int("convolutions", 1, 3),
            "dense": trial.suggest_categorical("dense", (64, 128, 256)),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
