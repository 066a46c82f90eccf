"""TimesNet: a series folded by its periods into images, read by inception convolutions.

Wu et al., TimesNet: temporal 2D-variation modeling for general time series analysis, ICLR 2023, arXiv:2210.02186.
Here the periods are found once, on the training rows, and kept (the paper: in each batch anew, so that a window's forecast
depends on its neighbours and nothing exports); the amplitudes whose softmax weighs the periods are those of the waves themselves,
sums times 2 / steps (the authors' code: the sums, whose softmax is the sharper the more steps there are); an inception's kernels are
added up to one convolution, cut to what the image can fill; RevIN is off unless asked for (the authors normalise each window), and
the forecast corrects the last value (`residual`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import _contract
from models._contract import Batch, Inputs, Problem, State, Trial, option
from models._layers import views
from models._layers.frame import RESIDUALS, chain, mix_option, residual_option
from models._layers.revin import Embed, Head, revin_option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of TimesNet."""

    width: int = option(16, "channels of a step", low=1, high=1024)
    feedforward: int = option(32, "channels between the two inceptions of a block", low=1, high=2048)
    layers: int = option(2, "blocks", low=1, high=8)
    periods: int = option(2, "strongest periods that a block folds by (as many as there are, in short windows)", low=1, high=16)
    kernels: int = option(2, "convolutions of an inception: 1×1, 3×3, 5×5 …", low=1, high=8)
    dropout: float = option(0.0, "share of channels dropped in training", low=0.0, high=0.9)
    revin: str = revin_option("off")
    residual: str = residual_option("last")
    mix: str = mix_option("flat")


def strongest(amplitudes: list[float], steps: int, count: int) -> list[int]:
    """The `count` frequencies (cycles in `steps`) of largest amplitude whose periods, steps // frequency, differ.

    `amplitudes[f]` belongs to frequency f; frequency 0 is the level and no period.
    """
    kept: dict[int, int] = {}
    for frequency in sorted(range(1, len(amplitudes)), key=lambda f: (-amplitudes[f], f)):
        kept.setdefault(steps // frequency, frequency)
    return list(kept.values())[:count]


class Tokens(nn.Module):
    """h (batch, history + horizon, width): the history's steps, drawn out over the horizon, beside the calendar of all."""

    def __init__(self, problem: Problem, width: int) -> None:
        super().__init__()
        self.values = nn.Linear(problem.nodes * len(problem.features), width)
        self.extend = nn.Linear(problem.history, problem.history + problem.horizon)
        self.calendar = nn.Linear(len(problem.known), width, bias=False) if problem.known else None

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        h = self.extend(self.values(x.flatten(2)).transpose(1, 2)).transpose(1, 2).contiguous()
        return h if self.calendar is None else h + self.calendar(known)


class Inception(nn.Module):
    """The mean of several square convolutions, 1×1, 3×3 …, whose size stays. Being linear, they are one convolution."""

    def __init__(self, inputs: int, outputs: int, kernels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(inputs, outputs, 2 * i + 1) for i in range(kernels))
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.bias)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to the same size."""
        weight, bias = self.merged()
        middle = weight.shape[-1] // 2
        high, wide = (min(middle, size - 1) for size in image.shape[2:])  # beyond lies padding alone
        weight = weight[:, :, middle - high : middle + high + 1, middle - wide : middle + wide + 1]
        return functional.conv2d(image, weight, bias, padding=(high, wide))

    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that equals the mean of all."""
        largest = len(self.convolutions) - 1
        padded = [functional.pad(c.weight, [largest - i] * 4) for i, c in enumerate(self.convolutions)]
        biases = [c.bias for c in self.convolutions]
        return torch.stack(padded).mean(0), torch.stack(biases).mean(0)


class Block(nn.Module):
    """Folds the steps by each period, convolves in two dimensions, and weighs the results by the periods' amplitudes."""

    def __init__(self, o: Options) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            Inception(o.width, o.feedforward, o.kernels),
            nn.GELU(),
            Inception(o.feedforward, o.width, o.kernels),
        )
        self.drop = nn.Dropout(o.dropout)
        self.norm = nn.LayerNorm(o.width)

    def forward(self, h: Tensor, periods: list[int], basis: Tensor) -> Tensor:
        """h (batch, steps, width) to the same; basis (2, steps, periods) as in `Core`."""
        parts = torch.stack([self._folded(h, period) for period in periods], -1)
        mixed = (parts * amplitudes(h, basis).softmax(-1)[:, None, None]).sum(-1)
        return self.norm(h + self.drop(mixed))

    def _folded(self, h: Tensor, period: int) -> Tensor:
        """(batch, steps, width): one row a period, one column a phase."""
        steps = h.shape[1]
        image = functional.pad(h, (0, 0, 0, -steps % period)).transpose(1, 2).unflatten(2, (-1, period))
        return self.convolve(image).flatten(2)[:, :, :steps].transpose(1, 2)


def amplitudes(h: Tensor, basis: Tensor) -> Tensor:
    """Mean amplitude over the width of h (batch, steps, width) at each period: (batch, periods)."""
    cosine, sine = h.transpose(1, 2) @ basis[0], h.transpose(1, 2) @ basis[1]
    return (cosine.square() + sine.square() + 1e-8).sqrt().mean(1)  # the root of 0 has no gradient


class Core(nn.Module):
    """h (batch, steps, width) through the blocks to the target steps, flat: (batch, horizon · width).

    `frequencies` (cycles in all steps) is a buffer, saved with the weights; beside it lie the plain numbers that make its
    folding static, brought up to date whenever the weights are loaded.
    """

    frequencies: Tensor  # (periods,) int64
    basis: Tensor  # (2, steps, periods): cosines and sines of the frequencies

    def __init__(self, problem: Problem, o: Options) -> None:
        super().__init__()
        self.steps, self.horizon = problem.history + problem.horizon, problem.horizon
        first = strongest([0.0] * (self.steps // 2 + 1), self.steps, o.periods)
        self.register_buffer("frequencies", torch.tensor(first))
        self.register_buffer("basis", torch.zeros(2, self.steps, len(first)), persistent=False)
        self.blocks = nn.ModuleList(Block(o) for _ in range(o.layers))
        self.periods: list[int] = []
        self.choose(first)
        self.register_load_state_dict_post_hook(_reread)

    def choose(self, frequencies: list[int]) -> None:
        """Fold by these frequencies from now on."""
        device = self.frequencies.device
        self.frequencies.copy_(torch.tensor(frequencies, device=device))
        self.periods = [self.steps // f for f in frequencies]
        angle = torch.arange(self.steps)[:, None] * torch.tensor(frequencies) * (2 * torch.pi / self.steps)
        self.basis.copy_(torch.stack((angle.cos(), angle.sin())) * (2 / self.steps))

    def forward(self, state: State) -> State:
        h = state["h"]
        for block in self.blocks:
            h = block(h, self.periods, self.basis)
        return {**state, "h": h[:, -self.horizon :].flatten(1)}


def _reread(core: nn.Module, _: Any) -> None:
    """After loading weights: the plain numbers beside the buffer `frequencies`."""
    assert isinstance(core, Core)
    core.choose(core.frequencies.tolist())


def spectrum(batches: Iterable[Batch], problem: Problem) -> list[float]:
    """Mean amplitude of the forecast sites' targets at each frequency, over the windows whose every target was measured."""
    seen, targets = views.outputs(problem), len(problem.targets)
    total = torch.zeros((problem.history + problem.horizon) // 2 + 1, dtype=torch.float64)
    for batch in batches:
        series = torch.cat((batch.x[:, :, seen, :targets], batch.y), 1).double()
        whole = (batch.mask > 0).all(1, keepdim=True)
        total += (torch.fft.rfft(series, dim=1).abs() * whole).sum((0, 2, 3)).cpu()
    return [float(a) for a in total]


class Network(_contract.Network):
    """Temporal 2D-variation: the periods are those of the training rows."""

    title = "TimesNet"
    paper = "Wu et al., TimesNet: temporal 2D-variation modeling for general time series analysis, ICLR 2023, arXiv:2210.02186"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    presets: ClassVar = {
        "paper": {
            "width": 32,
            "feedforward": 32,
            "periods": 5,
            "kernels": 6,
            "dropout": 0.1,
            "revin": "full",
            "residual": "none",
        }
    }

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        tokens = Tokens(seen, options.width)
        embed = Embed(seen, tokens, residual=options.residual, revin=options.revin, fold=fold)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", embed)
        self.blocks.add_module("core", Core(seen, options))
        self.blocks.add_module("head", Head(seen, seen.horizon * options.width, residual=options.residual, sites=sites))

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Take the periods that are strongest in the training windows, history and targets together."""
        core = self.blocks.get_submodule("core")
        assert isinstance(core, Core)
        core.choose(strongest(spectrum(batches, self.problem), core.steps, len(core.periods)))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "width": trial.suggest_categorical("width", (16, 32)),
            "layers": trial.suggest_int("layers", 1, 3),
            "periods": trial.suggest_int("periods", 1, 4),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
