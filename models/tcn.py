"""TCN: dilated causal convolutions with weight normalisation and residual connections.

Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and recurrent networks for sequence modeling, 2018.
Here the number of levels follows from the history unless it is given, a direct head forecasts all steps from the last
position, and the forecast is a correction (option `residual`), which trains in far fewer steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.frame import RESIDUALS, Embed, Head, Steps, chain, mix_option, residual_option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of the TCN."""

    channels: int = option(32, "channels of each level", low=1, high=1024)
    kernel: int = option(3, "steps of each convolution", low=2, high=15)
    levels: int = option(0, "levels, each of twice the dilation; 0: as many as see the whole history", low=0, high=12)
    dropout: float = option(0.1, "share of channels dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")
    mix: str = mix_option("flat")


class CausalConv(nn.Module):
    """Convolution that sees the present and the past, weight-normalised (Salimans and Kingma, 2016): w = gain · v / |v|.

    Written out rather than by torch's parametrisation, so that the state dict stays plain and the export folds it away.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int) -> None:
        super().__init__()
        plain = nn.Conv1d(inputs, outputs, kernel)
        self.direction = nn.Parameter(plain.weight.detach().clone())
        self.gain = nn.Parameter(self.direction.detach().norm(dim=(1, 2), keepdim=True))
        self.bias = nn.Parameter(plain.bias.detach().clone())
        self.dilation, self.past = dilation, (kernel - 1) * dilation

    def forward(self, h: Tensor) -> Tensor:
        """(batch, channels, steps) to as many steps."""
        weight = self.gain * self.direction / self.direction.square().sum((1, 2), keepdim=True).sqrt()
        return functional.conv1d(functional.pad(h, (self.past, 0)), weight, self.bias, dilation=self.dilation)


class Level(nn.Module):
    """Two convolutions of one dilation, and a skip (1×1 where the width changes)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            CausalConv(inputs, outputs, kernel, dilation),
            nn.ReLU(),
            nn.Dropout(dropout),
            CausalConv(outputs, outputs, kernel, dilation),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        return functional.relu(self.convs(h) + self.skip(h))


def levels_for(history: int, kernel: int) -> int:
    """Fewest levels whose last position sees the whole history: 1 + 2 (kernel - 1) (2^levels - 1) steps."""
    levels = 1
    while 1 + 2 * (kernel - 1) * (2**levels - 1) < history:
        levels += 1
    return levels


class Core(nn.Module):
    """h (batch, history, width) to the last position's channels (batch, channels)."""

    def __init__(self, width: int, history: int, options: Options) -> None:
        super().__init__()
        levels = options.levels or levels_for(history, options.kernel)
        widths = [width] + [options.channels] * levels
        self.levels = nn.Sequential(
            *(Level(widths[i], widths[i + 1], options.kernel, 2**i, options.dropout) for i in range(levels))
        )

    def sequence(self, state: State) -> Tensor:
        """(batch, history, channels): step t has seen no later step."""
        return self.levels(state["h"].transpose(1, 2)).transpose(1, 2)

    def forward(self, state: State) -> State:
        return {**state, "h": self.levels(state["h"].transpose(1, 2))[:, :, -1]}


class Network(_contract.Network):
    """Dilated causal convolutions over the steps, with the calendar beside each step and beside the head."""

    title = "TCN"
    paper = "Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and recurrent networks, arXiv:1803.01271"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    causal = True

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        steps = Steps(seen)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(seen, steps, residual=options.residual, fold=fold))
        self.blocks.add_module("core", Core(steps.width, seen.history, options))
        self.blocks.add_module("head", Head(seen, options.channels, residual=options.residual, sites=sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "channels": trial.suggest_categorical("channels", (16, 32, 64)),
            "kernel": trial.suggest_int("kernel", 2, 4),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
