"""Networks of the neuralforecast library as candidates: `neuralforecast:NHITS`, through the extra of that name.

The library's class becomes the core of a chain of blocks. It is trained by the one training loop, under our budget, scaler and
seeds, and is scored and exported as all others are; the library's own trainer, scalers and losses are not used.
Legend: B windows, S series (nodes · targets), H history, F horizon, Q quantiles.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cellwright.errors import ParamsError, UnknownName
from models import _contract
from models._contract import Problem, State
from models._layers import views

_NOT_HERE = (
    "'{key}' needs the library neuralforecast, which is not installed; install the extra with `pip install "
    "'cellwright[neuralforecast]'` (in a checkout: `uv pip install -c constraints.txt -e '.[neuralforecast]'`), or leave it out"
)
_forecasting = threading.Lock()  # classes that keep a window's mean and deviation in themselves would mix up threads' windows
_OURS = ("h", "input_size", "n_series", "loss", "recurrent", "exclude_insample_y")  # and all that the base class is given


def module(name: str) -> ModuleType:
    """What a file of the zoo holds, for one class of the library: Network, Options, and the file it is from.

    Raises:
        ParamsError: neuralforecast is not installed.
        UnknownName: it has no such model.
    """
    try:
        library = importlib.import_module("neuralforecast.models")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("neuralforecast"):
            raise
        raise ParamsError(_NOT_HERE.format(key=f"neuralforecast:{name}")) from None
    for logger in ("pytorch_lightning", "lightning_fabric"):  # its import makes them speak for our trainer too
        logging.getLogger(logger).setLevel(logging.ERROR)
    known = [n for n in library.__all__ if hasattr(getattr(library, n), "EXOGENOUS_FUTR")]
    if name not in known:
        raise UnknownName("model of neuralforecast", name, known)
    return _module(getattr(library, name))


@cache
def _module(wrapped: type[nn.Module]) -> ModuleType:
    _count_by_shape()
    made = ModuleType(f"neuralforecast:{wrapped.__name__}", wrapped.__doc__)
    made.__file__ = inspect.getsourcefile(wrapped)
    made.__dict__["Options"] = _options(wrapped)
    made.__dict__["Network"] = _network(wrapped)
    return made


def _count_by_shape() -> None:
    """`len(x)` in the library's files becomes `x.shape[0]` where x is a tensor.

    Both are the same number, but the exporter takes the first for a constant: NHITS and others would be exported for the two
    windows of the example alone.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(("neuralforecast.models.", "neuralforecast.common.")):
            module.__dict__["len"] = _length


def _length(x: Any) -> Any:
    return x.shape[0] if isinstance(x, Tensor) else len(x)


def settings_of(wrapped: type) -> tuple[str, ...]:
    """The hyper-parameters of a class that are its own: neither training nor data, which are ours."""
    base = next(kind for kind in wrapped.__mro__ if kind.__name__ == "BaseModel")
    taken = {*inspect.signature(base.__init__).parameters, *_OURS}  # type: ignore[misc]
    own = inspect.signature(wrapped.__init__).parameters  # type: ignore[misc]
    return tuple(n for n, p in own.items() if n not in taken and p.kind is not inspect.Parameter.VAR_KEYWORD)


def _options(wrapped: type) -> type[_contract.Options]:
    @dataclass(frozen=True)
    class Options(_contract.Options):
        """The hyper-parameters of the library's class, by its own names."""

        settings: dict[str, Any] = field(
            default_factory=dict, metadata={"doc": "hyper-parameters of the library's class, by its own names"}
        )

        def __post_init__(self) -> None:
            known = settings_of(wrapped)
            for name in self.settings:
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(known)}"
                    raise ValueError(f"settings: {wrapped.__name__} has no hyper-parameter '{name}'; {hint}")

    return Options


def _network(wrapped: type) -> type[_contract.Network]:
    class Network(Adapter):
        kind = wrapped
        title = f"{wrapped.__name__} (neuralforecast)"
        inputs = ("all",) if wrapped.MULTIVARIATE else ("site",)  # type: ignore[attr-defined]
        uses_known = bool(wrapped.EXOGENOUS_FUTR)  # type: ignore[attr-defined]
        uses_lags = bool(wrapped.EXOGENOUS_FUTR or wrapped.EXOGENOUS_HIST)  # type: ignore[attr-defined]
        uses_features = bool(wrapped.EXOGENOUS_HIST)  # type: ignore[attr-defined]

    return Network


class Embed(nn.Module):
    """The library's windows: a series a target and site; calendar and lags as known future, other channels as past."""

    def __init__(self, problem: Problem, kind: Any) -> None:
        super().__init__()
        self.problem, self.joint = problem, bool(kind.MULTIVARIATE)
        self.targets = len(problem.targets)
        self.others = [i for i in views.telemetry(problem) if i >= self.targets] if kind.EXOGENOUS_HIST else []
        lagged = [[problem.lag_channel(target, lag) for lag in problem.lags] for target in problem.targets]
        self.lagged = lagged if problem.lags and (kind.EXOGENOUS_FUTR or kind.EXOGENOUS_HIST) else []
        self.ahead = bool(kind.EXOGENOUS_FUTR)
        self.known = bool(problem.known) and self.ahead

    @property
    def past(self) -> int:
        """Channels of `hist_exog`."""
        return len(self.others) + (len(self.problem.lags) if self.lagged and not self.ahead else 0)

    @property
    def future(self) -> int:
        """Channels of `futr_exog`."""
        return (len(self.problem.known) if self.known else 0) + (len(self.problem.lags) if self.lagged and self.ahead else 0)

    def forward(self, state: State) -> State:
        x, known = state["x"], state["known"]
        parts = {"insample_y": x[..., : self.targets].permute(0, 2, 3, 1).flatten(1, 2).unsqueeze(3)}
        past, future = self._past(x), self._future(x, known)
        parts |= {"hist_exog": torch.cat(past, 3)} if past else {}
        parts |= {"futr_exog": torch.cat(future, 3)} if future else {}
        out = {name: self._formed(name, part) for name, part in parts.items()}
        return {**out, "insample_mask": torch.ones_like(out["insample_y"])}

    def _formed(self, name: str, part: Tensor) -> Tensor:
        """(B, S, steps, channels) as the library reads it: series in the batch, or beside each other as the last dimension."""
        if not self.joint:
            return part.flatten(0, 1)
        return part.squeeze(3).transpose(1, 2) if name == "insample_y" else part.permute(0, 3, 2, 1)

    def _past(self, x: Tensor) -> list[Tensor]:
        """(B, S, H, channels) each."""
        found = [x[..., self.others].transpose(1, 2).repeat_interleave(self.targets, 1)] if self.others else []
        return [*found, self._lags(x)] if self.lagged and not self.ahead else found

    def _future(self, x: Tensor, known: Tensor) -> list[Tensor]:
        """(B, S, H + F, channels) each."""
        found = [known.unsqueeze(1).expand(-1, x.shape[2] * self.targets, -1, -1)] if self.known else []
        if self.lagged and self.ahead:
            lags = self._lags(x)  # of the steps from F on: x holds each F steps ahead of its place
            found.append(torch.cat((lags[:, :, :1].expand(-1, -1, self.problem.horizon, -1), lags), 2))
        return found

    def _lags(self, x: Tensor) -> Tensor:
        """(B, S, H, lags)."""
        return torch.stack([x[..., channels] for channels in self.lagged], 3).permute(0, 2, 3, 1, 4).flatten(1, 2)


class Core(nn.Module):
    """The library's network: its windows to h (rows, F, series beside each other, Q)."""

    def __init__(self, network: nn.Module, problem: Problem, *, joint: bool) -> None:
        super().__init__()
        self.network = network
        series = problem.nodes * len(problem.targets) if joint else 1
        self.shape = (problem.horizon, series, problem.out_quantiles)

    def forward(self, state: State) -> State:
        windows: dict[str, Tensor | None] = {"hist_exog": None, "futr_exog": None, "stat_exog": None, **state}
        with nullcontext() if self.training else _forecasting:
            return {"h": self.network(windows).reshape(-1, *self.shape)}


class Head(nn.Module):
    """Brings the series back to their sites and targets."""

    def __init__(self, problem: Problem, *, joint: bool) -> None:
        super().__init__()
        self.joint, self.nodes, self.targets = joint, problem.nodes, len(problem.targets)

    def forward(self, state: State) -> State:
        if self.joint:
            return {"y": torch.unflatten(state["h"], 2, (self.nodes, self.targets))}
        return {"y": torch.unflatten(state["h"], 0, (-1, self.targets)).permute(0, 2, 3, 1, 4)}


class Adapter(_contract.Network):
    """One class of neuralforecast between our embed and head."""

    kind: Any  # the library's class

    def __init__(self, problem: Problem, options: Any) -> None:
        super().__init__(problem, options)
        joint = bool(self.kind.MULTIVARIATE)
        embed = Embed(problem, self.kind)
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", embed)
        self.blocks.add_module("core", Core(self._built(embed), problem, joint=joint))
        self.blocks.add_module("head", Head(problem, joint=joint))

    def _built(self, embed: Embed) -> nn.Module:
        """The library's network, for this problem; its weights are drawn from torch's current random state."""
        problem = self.problem
        given: dict[str, Any] = {"h": problem.horizon, "input_size": problem.history, "loss": _loss(problem)}
        given |= {"futr_exog_list": [f"future {i}" for i in range(embed.future)]} if embed.future else {}
        given |= {"hist_exog_list": [f"past {i}" for i in range(embed.past)]} if embed.past else {}
        given |= {"n_series": problem.nodes * len(problem.targets)} if embed.joint else {}
        with _own_seed() as seed:
            built: nn.Module = self.kind(**given, **self.options.settings, random_seed=seed)
        if built.RECURRENT:
            raise ValueError(f"{self.kind.__name__} forecasts one step after the other; here all steps are forecast at once")
        return built


def _loss(problem: Problem) -> nn.Module:
    """It is never computed: it tells the library how many values a forecast of one step has."""
    losses = importlib.import_module("neuralforecast.losses.pytorch")
    loss: nn.Module = losses.MQLoss(quantiles=list(problem.quantiles)) if problem.quantiles else losses.MAE()
    return loss


@contextmanager
def _own_seed() -> Iterator[int]:
    """A seed from torch's random state. The library seeds Python, NumPy and the environment with it: these are put back."""
    seed = int(torch.randint(2**31, (1,)))
    python, numpy, variable = random.getstate(), np.random.get_state(), os.environ.get("PL_GLOBAL_SEED")  # noqa: NPY002
    try:
        yield seed
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        os.environ.pop("PL_GLOBAL_SEED", None)
        os.environ.pop("PL_SEED_WORKERS", None)
        if variable is not None:
            os.environ["PL_GLOBAL_SEED"] = variable
