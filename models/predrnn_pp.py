"""PredRNN++: stacked causal LSTMs that share one spatial memory, with a gradient highway across time.

Wang et al., PredRNN++: towards a resolution of the deep-in-time dilemma in spatiotemporal predictive learning, ICML 2018. The
memory M rises through the layers of a step and from the top of one step to the bottom of the next; the highway sits between the
first two layers. Here the head forecasts the centre from the last state instead of emitting frame after frame, a frame is cut
into 3 × 3 pieces whose pixels become channels (the paper: pieces of 4 × 4 pixels of larger frames), and it corrects the last value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.convlstm import taps
from models._layers.frame import RESIDUALS, Embed, Head, residual_option
from models._layers.patch import centre, edge, frames, padded


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of PredRNN++."""

    channels: int = option(8, "channels of the first layer and of the highway", low=1, high=512)
    upper: int = option(8, "channels of the further layers", low=1, high=512)
    layers: int = option(2, "causal LSTMs in a stack", low=2, high=8)
    kernel: int = option(3, "pixels along a kernel's edge", choices=(1, 3, 5, 7))
    piece: int = option(0, "pixels along the edge of what becomes one place; 0: as few as give 3 × 3 places", low=0, high=16)
    residual: str = residual_option("linear")


class Places(nn.Module):
    """Encoder: frames (batch, history, channels, G, G) whose places are pieces of the patch, with the step's calendar on each."""

    def __init__(self, problem: Problem, piece: int) -> None:
        super().__init__()
        self.problem = problem
        side = edge(problem)
        self.piece = piece or -(-side // 3)
        self.grid = -(-side // self.piece)
        self.grid += 1 - self.grid % 2  # odd, so that the centre lies in the middle place
        self.channels = self.piece**2 * len(problem.features) + len(problem.known)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        images = functional.pixel_unshuffle(padded(frames(x, self.problem), self.grid * self.piece), self.piece)
        if not self.problem.known:
            return images
        calendar = known[:, : self.problem.history, :, None, None].expand(-1, -1, -1, self.grid, self.grid)
        return torch.cat((images, calendar), 2)


def conv(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the image's size."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def renewed(memory: Tensor, gates: Tensor) -> Tensor:
    """f memory + i g, from the gates' pre-activations i, f, g side by side (batch, 3 · hidden, G, G)."""
    i, f, g = gates.chunk(3, 1)
    return f.sigmoid() * memory + i.sigmoid() * g.tanh()


class CausalLSTM(nn.Module):
    """One layer: its own memory C is renewed first, and the memory M that travels through the layers is renewed from it.

    Images are (batch, channels, G, G). With * a convolution:
        C' = f C + i g              g, i, f from x, h, C
        M' = f' tanh(w * M) + i' g'    g', i', f' from x, C', M
        h' = tanh(o) tanh(w * [C', M'])    o from x, C', M'
    """

    def __init__(self, inputs: int, below: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.of_x = conv(inputs, 7 * hidden, kernel, bias=True)
        self.of_state = conv(2 * hidden, 3 * hidden, kernel)
        self.of_memories = conv(hidden + below, 3 * hidden, kernel)
        self.mapped = conv(below, hidden, kernel)
        self.out = conv(2 * hidden, hidden, kernel)
        self.merge = conv(2 * hidden, hidden, 1)
        with torch.no_grad():  # parts lie as i, f, g, i', f', g', o: forgetting starts rare
            self.of_x.bias.view(7, hidden)[[1, 4]] = 1.0

    def forward(self, x_parts: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, C and M after a step; `x_parts` is `of_x` of the step's input (batch, 7 · hidden, G, G)."""
        n = self.hidden
        x_state, x_memory, x_out = x_parts.split((3 * n, 3 * n, n), 1)
        c = renewed(c, x_state + self.of_state(torch.cat((h, c), 1)))
        m = renewed(self.mapped(m).tanh(), x_memory + self.of_memories(torch.cat((c, m), 1)))
        both = torch.cat((c, m), 1)
        return (x_out + self.out(both)).tanh() * self.merge(both).tanh(), c, m


class Highway(nn.Module):
    """Gradient highway unit: z' = s tanh(p) + (1 - s) z, where s and p are convolutions of the input and of z."""

    def __init__(self, inputs: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.of_both = conv(inputs + hidden, 2 * hidden, kernel, bias=True)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        p, s = self.of_both(torch.cat((x, z), 1)).chunk(2, 1)
        s = s.sigmoid()
        return s * p.tanh() + (1 - s) * z


class Core(nn.Module):
    """h (batch, history, channels, G, G) to the top layer's state at the middle place (batch, upper)."""

    def __init__(self, places: Places, options: Options) -> None:
        super().__init__()
        kernel = taps(options.kernel, places.grid)
        self.widths = [options.channels] + [options.upper] * (options.layers - 1)
        inputs = [places.channels, *self.widths[:-1]]
        below = [self.widths[-1], *self.widths[:-1]]  # M comes to the first layer from the top of the step before
        self.layers = nn.ModuleList(CausalLSTM(*sizes, kernel) for sizes in zip(inputs, below, self.widths, strict=True))
        self.highway = Highway(self.widths[0], self.widths[0], kernel)

    def sequence(self, state: State) -> Tensor:
        """The top layer's state after each step (batch, history, upper, G, G); step t has seen no later step."""
        return torch.stack(self._states(state["h"]), 1)

    def forward(self, state: State) -> State:
        return {**state, "h": centre(self._states(state["h"])[-1])}

    def _states(self, x: Tensor) -> list[Tensor]:
        first = self.layers[0].of_x(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1])).unbind(1)  # no step waits for another
        zeros = [torch.zeros_like(first[0][:, :width]) for width in self.widths]
        h, c, m, z, tops = list(zeros), list(zeros), zeros[-1], zeros[0], []
        for x_parts in first:
            h[0], c[0], m = self.layers[0](x_parts, h[0], c[0], m)
            z = below = self.highway(h[0], z)
            for i, layer in enumerate(self.layers[1:], 1):
                h[i], c[i], m = layer(layer.of_x(below), h[i], c[i], m)
                below = h[i]
            tops.append(h[-1])
        return tops


class Network(_contract.Network):
    """Causal LSTMs over the frames of a patch; the middle of the last state tells the centre."""

    title = "PredRNN++"
    paper = "Wang et al., PredRNN++: towards a resolution of the deep-in-time dilemma, ICML 2018, arXiv:1804.06300"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site")
    causal = True
    presets: ClassVar = {"paper": {"channels": 128, "upper": 64, "layers": 4, "kernel": 5, "piece": 1, "residual": "none"}}

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        places = Places(problem, options.piece)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", Embed(problem, places, residual=options.residual))
        self.blocks.add_module("core", Core(places, options))
        self.blocks.add_module("head", Head(problem, options.upper, residual=options.residual))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        channels = trial.suggest_categorical("channels", (8, 16, 32))
        return {
            "channels": channels,
            "upper": channels,
            "layers": trial.suggest_int("layers", 2, 3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
