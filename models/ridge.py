"""Ridge: linear regression with a quadratic penalty, in closed form.

Hoerl and Kennard, Technometrics 12(1), 1970.
The forecast is linear in the last `history` values of the targets of all nodes, the hour of the first target step (24 one-hot
columns) and, if asked, the lag values. Above 500 sites those are the nodes of a site's neighbourhood on the grid. Features are
standardised on the training windows, targets centred, the intercept not penalised. A masked target counts in no output's fit.
Quantiles are those of a normal distribution around the forecast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models import _contract
from models._contract import Batch, Inputs, Problem, State, Trial, option
from models._layers import views
from models._layers.least_squares import Sums, solve

HOURS = 24
_ALL_SITES = 500  # above it a site is forecast from its neighbourhood


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of ridge regression."""

    penalty: float = option(100.0, "weight of the squared coefficients of standardised features", low=0.0)
    use_hour: bool = option(True, "hour of the first target step as 24 one-hot columns", choices=(True, False))
    use_lags: bool = option(True, "values at the problem's lags, where it has any", choices=(True, False))


class Design(nn.Module):
    """The features of the regression: h (batch, features)."""

    hours: Tensor

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__()
        self.problem = problem
        self.lags = problem.lags if options.use_lags else ()
        self.hour = problem.known.index("hour") if options.use_hour and "hour" in problem.known else None
        lagged = len(self.lags) * views.lag_steps(problem) * problem.outputs * len(problem.targets)
        hours = HOURS if self.hour is not None else 0
        self.width = problem.history * problem.nodes * len(problem.targets) + lagged + hours
        self.register_buffer("hours", torch.arange(HOURS, dtype=torch.float32), persistent=False)

    def forward(self, state: State) -> State:
        x = state["x"]
        parts = [views.target_history(x, self.problem)]
        parts += [views.lag_values(x, self.problem, lag).flatten(1) for lag in self.lags]
        if self.hour is not None:
            parts.append(self._one_hot(state["known"][:, self.problem.history, self.hour]))
        return {"h": torch.cat(parts, 1)}

    def _one_hot(self, day_share: Tensor) -> Tensor:
        """(batch, 24): `hour` is the hour of day / 24; the small offset keeps 14/24·24 from falling to 13."""
        hour = torch.floor(day_share * HOURS + 1e-3)
        return (hour.unsqueeze(1) == self.hours).to(day_share.dtype)


class Affine(nn.Module):
    """h @ weight + bias, both set by the fit; zero before it."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features, outputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)

    def forward(self, state: State) -> State:
        return {"h": torch.addmm(self.bias, state["h"], self.weight)}


class Head(nn.Module):
    """Shapes the forecast, and spreads it to the quantiles by the standard deviation of the training residuals."""

    sigma: Tensor
    scores: Tensor

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.shape = (problem.horizon, problem.outputs, len(problem.targets))
        self.register_buffer("sigma", torch.zeros(self.shape))
        scores = [NormalDist().inv_cdf(q) for q in problem.quantiles]
        self.register_buffer("scores", torch.tensor(scores), persistent=False)

    def forward(self, state: State) -> State:
        y = state["h"].unflatten(1, self.shape).unsqueeze(-1)
        return {"y": y + self.sigma.unsqueeze(-1) * self.scores if len(self.scores) else y}


class Network(_contract.Network):
    """Ridge regression in closed form, by normal equations summed over batches in float64.

    Raises:
        ValueError: more features than the normal equations of a common machine hold.
    """

    title = "Ridge"
    paper = "Hoerl and Kennard, Ridge regression: biased estimation for nonorthogonal problems, Technometrics 12(1), 1970"
    inputs: ClassVar[tuple[Inputs, ...]] = ("all", "patch", "site")
    uses_features = False
    closed_form = True
    additive = True
    max_values = 4000  # the fit holds a few square matrices of this size in float64: 1 GB

    def __init__(self, problem: Problem, options: Options) -> None:
        super().__init__(problem, options)
        design = Design(problem, options)
        if design.width > 2 * self.max_values:
            raise ValueError(
                f"ridge on {problem.nodes} nodes × {problem.history} steps has {design.width} features, at most "
                f"{2 * self.max_values} fit in memory; give it inputs 'patch' or 'site', or a shorter history"
            )
        self.blocks = nn.Sequential()
        self.blocks.add_module("embed", design)
        outputs = problem.horizon * problem.outputs * len(problem.targets)
        self.blocks.add_module("core", Affine(design.width, outputs))
        self.blocks.add_module("head", Head(problem))

    @classmethod
    def preferred_inputs(cls, sites: int, *, on_grid: bool, values_per_site: int = 1) -> Inputs:
        """All sites at once, as long as there are few; of many, those around a site say all that can be learnt of it."""
        if sites <= _ALL_SITES:
            return super().preferred_inputs(sites, on_grid=on_grid, values_per_site=values_per_site)
        return "patch" if on_grid else "site"

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {
            "penalty": trial.suggest_float("penalty", 0.1, 10_000.0, log=True),
            "use_lags": trial.suggest_categorical("use_lags", (True, False)),
        }

    @torch.no_grad()
    def fit_closed_form(self, batches: Iterable[Batch]) -> None:
        """Fit on the training batches.

        Raises:
            ValueError: an output has no measured target.
        """
        self._fit(self._sums(batches))

    @torch.no_grad()
    def statistics(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """The sums of the normal equations, no window among them: (P, P), (P, C) and, for gaps, (C, P, P); see least_squares."""
        return self._sums(batches).tensors()

    @torch.no_grad()
    def solve(self, statistics: Mapping[str, Tensor]) -> None:
        """Fit from sums.

        Raises:
            ValueError: an output has no measured target.
        """
        self._fit(Sums.of(statistics))

    def _sums(self, batches: Iterable[Batch]) -> Sums:
        sums = Sums.empty(*self.blocks.core.weight.shape)
        for batch in batches:
            design = self.blocks.embed({"x": batch.x, "known": batch.known})["h"]
            sums.add(design.cpu(), batch.y.flatten(1).cpu(), batch.mask.flatten(1).cpu().bool())
        return sums

    def _fit(self, sums: Sums) -> None:
        core, head = self.blocks.core, self.blocks.head
        fit = solve(sums, self.options.penalty)
        core.weight.copy_(fit.weight_PC)
        core.bias.copy_(fit.bias_C)
        head.sigma.copy_(fit.sigma_C.reshape(head.shape))
