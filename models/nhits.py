"""N-HiTS: a stack of multilayer perceptrons, each of which explains a part of the history at its own rate.

Challu et al., N-HiTS: neural hierarchical interpolation for time series forecasting, AAAI 2023.
Here the blocks read the targets of all nodes of a patch at once, calendar and lags beside them, and pooling and knots shrink to
short histories and horizons; the last block explains nothing away, since nobody would read what it leaves; and the forecast
corrects the last value unless asked otherwise (`residual`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Inputs, Problem, State, Trial, option
from models._layers.frame import RESIDUALS, Context, Fold, base, chain, finished, mix_option, residual_option


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of N-HiTS; the tuples have one entry a stack, all of the same length."""

    pooling: tuple[int, ...] = option((2, 2, 1), "steps of each stack's max pooling; at most the history")
    coarseness: tuple[int, ...] = option((4, 2, 1), "steps a knot of each stack's interpolation; at most the horizon")
    blocks: int = option(1, "blocks of a stack", low=1, high=8)
    hidden: int = option(128, "width of a block's layers (paper: 512)", low=1, high=4096)
    layers: int = option(2, "hidden layers of a block", low=1, high=8)
    interpolation: str = option("linear", "between knots: straight lines, or the nearest knot", choices=("linear", "nearest"))
    dropout: float = option(0.0, "share of activations dropped in training", low=0.0, high=0.9)
    residual: str = residual_option("last")
    mix: str = mix_option("shared")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.pooling) != len(self.coarseness) or not self.pooling:
            raise ValueError(f"pooling and coarseness need one entry a stack, found {self.pooling} and {self.coarseness}")
        if min(self.pooling + self.coarseness) < 1:
            raise ValueError(f"pooling and coarseness must be at least 1, found {self.pooling} and {self.coarseness}")


def interpolation(knots: int, steps: int, kind: str) -> Tensor:
    """Matrix (knots, steps): a row of values at `knots` times it is the row at `steps`.

    Knots lie in the middle of equal stretches; before the first and after the last one its value holds.
    """
    place = ((torch.arange(steps) + 0.5) * knots / steps - 0.5).clamp(0, knots - 1)
    if kind == "nearest":
        return nn.functional.one_hot((torch.arange(steps) * knots) // steps, knots).T.float()
    lower = place.floor().long().clamp(max=max(0, knots - 2))
    share = (place - lower).unsqueeze(1)
    left, right = (nn.functional.one_hot((lower + i).clamp(max=knots - 1), knots) for i in (0, 1))
    return ((1 - share) * left + share * right).T


@dataclass(frozen=True)
class Sizes:
    """What all blocks have in common."""

    signals: int  # targets of all nodes
    history: int
    extra: int  # what else is known, flat
    series: int  # outputs · targets · quantiles
    horizon: int


class Knots(nn.Module):
    """A linear map to a few knots of each row, and the interpolation between them: (batch, width) to (batch, rows, steps)."""

    matrix: Tensor

    def __init__(self, width: int, rows: int, steps: int, coarseness: int, kind: str) -> None:
        super().__init__()
        self.rows, knots = rows, math.ceil(steps / min(coarseness, steps))
        self.map = nn.Linear(width, rows * knots)
        self.register_buffer("matrix", interpolation(knots, steps, kind), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.map(h).unflatten(1, (self.rows, -1)) @ self.matrix


class Block(nn.Module):
    """Pools the signal, and forecasts from it; `explains`: also says what part of the signal it has used up."""

    def __init__(self, sizes: Sizes, options: Options, stack: int, *, explains: bool) -> None:
        super().__init__()
        pool = min(options.pooling[stack], sizes.history)
        self.pool = nn.MaxPool1d(pool, ceil_mode=True)
        width = sizes.signals * math.ceil(sizes.history / pool) + sizes.extra
        self.layers = nn.Sequential()
        for _ in range(options.layers):
            self.layers += nn.Sequential(nn.Linear(width, options.hidden), nn.ReLU(), nn.Dropout(options.dropout))
            width = options.hidden
        coarseness, kind = options.coarseness[stack], options.interpolation
        self.forecast = Knots(width, sizes.series, sizes.horizon, coarseness, kind)
        self.backcast = Knots(width, sizes.signals, sizes.history, coarseness, kind) if explains else None

    def forward(self, signal: Tensor, extra: Tensor) -> tuple[Tensor | None, Tensor]:
        """signal (batch, signals, history), extra (batch, width): its share of the signal, and of the forecast."""
        h = self.layers(torch.cat((self.pool(signal).flatten(1), extra), 1))
        return None if self.backcast is None else self.backcast(h), self.forecast(h)


class Embed(nn.Module):
    """h: the targets of all nodes (batch, signals, history); extra: other channels, and what is known of the target steps."""

    def __init__(self, problem: Problem, options: Options, *, fold: bool) -> None:
        super().__init__()
        self.targets, self.valid = len(problem.targets), "valid" in problem.features
        self.fold, self.context, self.base = Fold() if fold else None, Context(problem), base(problem, options.residual)
        others = len(problem.features) - self.targets - self.valid
        self.width = problem.nodes * (problem.history * others + self.valid) + self.context.width

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        if self.fold is not None:
            x, known = self.fold(x, known)
        extra = [x[..., self.targets : x.shape[-1] - self.valid].flatten(1)]
        if self.valid:
            extra.append(x[:, -1, :, -1])  # it does not change within a window
        if self.context.width:
            extra.append(self.context(x, known))
        out: State = {"h": x[..., : self.targets].flatten(2).transpose(1, 2), "extra": torch.cat(extra, 1)}
        if self.base is not None:
            out["base"] = self.base(x)
        return out


class Core(nn.Module):
    """Doubly residual: each block reads what those before it left, and all forecasts add up to h (batch, series, horizon)."""

    def __init__(self, sizes: Sizes, options: Options) -> None:
        super().__init__()
        stacks = [stack for stack in range(len(options.pooling)) for _ in range(options.blocks)]
        last = len(stacks) - 1
        self.layers = nn.ModuleList(Block(sizes, options, stack, explains=i < last) for i, stack in enumerate(stacks))

    def parts(self, signal: Tensor, extra: Tensor) -> list[Tensor]:
        """What each block adds to the forecast: (batch, series, horizon) each."""
        found = []
        for block in self.layers:
            backcast, forecast = block(signal, extra)
            found.append(forecast)
            signal = signal if backcast is None else signal - backcast
        return found

    def forward(self, state: State) -> State:
        h = torch.stack(self.parts(state["h"], state["extra"])).sum(0)
        return {"h": h} | ({"base": state["base"]} if "base" in state else {})


class Head(nn.Module):
    """Shapes the sum of the forecasts, and adds the base."""

    def __init__(self, problem: Problem, sites: int) -> None:
        super().__init__()
        self.shape, self.sites = (problem.outputs, len(problem.targets), problem.out_quantiles), sites

    def forward(self, state: State) -> State:
        return finished(state["h"].transpose(1, 2).unflatten(2, self.shape), state, self.sites)


class Network(_contract.Network):
    """Multi-rate pooling, hierarchical interpolation, doubly residual stacks."""

    title = "N-HiTS"
    paper = "Challu et al., N-HiTS: neural hierarchical interpolation for time series forecasting, AAAI 2023, arXiv:2201.12886"
    inputs: ClassVar[tuple[Inputs, ...]] = ("patch", "site", "all")
    presets: ClassVar = {"paper": {"hidden": 512, "residual": "none"}}

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        seen, fold, sites = chain(problem, options.mix)
        embed = Embed(seen, options, fold=fold)
        targets = len(seen.targets)
        sizes = Sizes(
            signals=seen.nodes * targets,
            history=seen.history,
            extra=embed.width,
            series=seen.outputs * targets * seen.out_quantiles,
            horizon=seen.horizon,
        )
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", embed)
        self.blocks.add_module("core", Core(sizes, options))
        self.blocks.add_module("head", Head(seen, sites))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        rates = trial.suggest_categorical("rates", ("even", "halving", "wide"))
        pooling, coarseness = {"even": ((1, 1, 1),) * 2, "halving": ((2, 2, 1), (4, 2, 1)), "wide": ((8, 4, 1), (12, 4, 1))}[
            rates
        ]
        return {
            "pooling": pooling,
            "coarseness": coarseness,
            "hidden": trial.suggest_categorical("hidden", (64, 128, 256)),
            "blocks": trial.suggest_int("blocks", 1, 2),
            "dropout": trial.suggest_float("dropout", 0.0, 0.3),
            "residual": trial.suggest_categorical("residual", RESIDUALS),
        }
