"""What every network of the zoo keeps to, so that any of them can be trained, cut, profiled and exported alike.

Shapes used in this package:
    x      (batch, history, nodes, features)   normalised; features as in `Problem.features`, targets first
    known  (batch, history + horizon, known)   calendar features of the history's and the horizon's steps
    y      (batch, horizon, outputs, targets, quantiles)   normalised; quantiles = 1 for a point forecast
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor, nn

Inputs = Literal["site", "patch", "all"]


@dataclass(frozen=True)
class Problem:
    """What a forecast is asked to be, as one network sees it.

    `inputs` is `site` (each site alone, one network shared by all: nodes = outputs = 1), `patch` (a K×K neighbourhood
    whose centre is forecast: nodes = K·K, outputs = 1) or `all` (every site at once: nodes = outputs = sites).

    `features` names the channels of x: the targets first, then other telemetry, then series joined by time (`temperature`), then
    the mean of the nearest sites (`traffic~8`), then one channel a target and lag named `traffic@144`, then `valid` for patches
    (0 where the patch reaches over the edge). The channel of lag L holds, at history position i, the value `horizon - L` steps
    later than position i's own time: its last `horizon` positions are the values exactly L steps before the target steps.

    `known` names the calendar channels: `hour` (hour of day / 24), `hour_sin`, `hour_cos`, `week_sin`, `week_cos`, `weekend`, and
    `holiday` where it is asked for.
    """

    history: int
    horizon: int
    cadence_s: float
    inputs: Inputs
    nodes: int
    outputs: int
    features: tuple[str, ...]
    targets: tuple[str, ...]
    known: tuple[str, ...] = ()
    lags: tuple[int, ...] = ()
    season: int = 144  # steps in a day
    grid: tuple[int, int] | None = None  # (rows, columns) of the nodes, where they lie on a grid
    quantiles: tuple[float, ...] = ()  # empty: one point forecast
    edges: tuple[tuple[int, int, float], ...] = ()  # (node, other node, weight), where the data set has them and `reads_edges`
    holidays: str = ""  # country or country-region whose public holidays `holiday` marks
    exogenous: tuple[str, ...] = ()  # sources of the series joined by time, `path:column`; the column names the channel
    nearest: tuple[int, ...] = ()  # neighbours of each site, one after the other, where positions do not tell them

    def lag_channel(self, target: str, lag: int) -> int:
        """Position in `features` of a target's lag channel."""
        return self.features.index(f"{target}@{lag}")

    @property
    def out_quantiles(self) -> int:
        """Size of y's last dimension."""
        return max(1, len(self.quantiles))


State = dict[str, Tensor]


class Batch(NamedTuple):
    """One training batch, normalised. `mask` is 1 where a target was really measured, 0 where it must not count."""

    x: Tensor  # (batch, history, nodes, features)
    known: Tensor  # (batch, history + horizon, known)
    y: Tensor  # (batch, horizon, outputs, targets)
    mask: Tensor  # (batch, horizon, outputs, targets)


class Trial(Protocol):
    """The part of an Optuna trial that a search space uses."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def option(default: Any, doc: str, *, low: float | None = None, high: float | None = None, choices: tuple[Any, ...] = ()) -> Any:
    """A documented field of a network's `Options`, with the range that is accepted."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True)
class Options:
    """Base of every network's options: frozen, each field declared with `option(...)`."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, meta = getattr(self, f.name), f.metadata
            if meta.get("choices") and value not in meta["choices"]:
                raise ValueError(f"{f.name} must be one of {meta['choices']}, not {value!r}")
            if meta.get("low") is not None and value < meta["low"]:
                raise ValueError(f"{f.name} must be at least {meta['low']}, not {value!r}")
            if meta.get("high") is not None and value > meta["high"]:
                raise ValueError(f"{f.name} must be at most {meta['high']}, not {value!r}")


class Network(nn.Module):
    """A chain of named blocks; each takes and returns one flat `dict[str, Tensor]`, the first gets {"x", "known"}.

    A subclass sets `self.blocks` (an nn.Sequential of named blocks, at least embed, core, head) in its constructor and
    declares the class attributes below. The last block leaves the forecast under "y".
    """

    title: ClassVar[str]  # for people: "PredRNN++"
    paper: ClassVar[str] = ""  # reference, where there is one
    inputs: ClassVar[tuple[Inputs, ...]]  # what it can take; the first is what it prefers
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    uses_known: ClassVar[bool] = True  # whether the calendar reaches its forecast
    uses_lags: ClassVar[bool] = True  # whether lag channels do
    uses_features: ClassVar[bool] = True  # whether channels other than the targets, their lags and `valid` do
    reads_edges: ClassVar[bool] = False  # whether it wants the data set's own graph, with inputs "all"
    causal: ClassVar[bool] = False  # its core has `sequence(state)`: (batch, history, ...) whose step t saw no later step
    closed_form: ClassVar[bool] = False  # fitted by `fit_closed_form` (or by its `fitter`) instead of gradient descent
    additive: ClassVar[bool] = (
        False  # its closed form is one of sums over windows: `statistics` of several owners add up for `solve`
    )
    fitter: ClassVar[str] = ""  # the member of cellwright/training/fitters that fits it, where torch alone cannot
    maps: ClassVar[bool] = False  # `forward_map` forecasts a whole grid without computing overlapping patches again
    jumps: ClassVar[bool] = False  # its forecast jumps where an input passes a threshold: inputs are scaled to the last bit alike
    max_values: ClassVar[int | None] = None  # most values (sites × history × targets) it takes with inputs "all"; None: any
    max_sites: ClassVar[int | None] = None  # most sites, where its cost grows with them and not with the history; None: any

    blocks: nn.Sequential

    def __init__(self, problem: Problem, options: Any) -> None:
        super().__init__()
        if problem.inputs not in self.inputs:
            raise ValueError(f"{self.title} takes inputs {' or '.join(self.inputs)}, not '{problem.inputs}'; set problem.inputs")
        self.problem = problem
        self.options = options

    @classmethod
    def preferred_inputs(cls, sites: int, *, on_grid: bool, values_per_site: int = 1) -> Inputs:
        """The first of `inputs` that a data set allows: a patch wants a grid, `all` at most `max_sites` and `max_values`.

        `values_per_site` is history × targets of the problem.

        Raises:
            ValueError: none of them is possible.
        """
        for kind in cls.inputs:
            fits = cls._holds(sites, values_per_site) if kind == "all" else kind == "site" or on_grid
            if fits:
                return kind
        raise ValueError(f"{cls.title} takes inputs {' or '.join(cls.inputs)}: not possible for {sites} sites, grid: {on_grid}")

    @classmethod
    def _holds(cls, sites: int, values_per_site: int) -> bool:
        """Whether all sites are few enough to be taken at once."""
        few_values = cls.max_values is None or sites * values_per_site <= cls.max_values
        return few_values and (cls.max_sites is None or sites <= cls.max_sites)

    @classmethod
    def lags(cls, problem: Problem) -> tuple[int, ...]:
        """Lags this network needs, in steps; those of the problem unless it says otherwise."""
        return problem.lags

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        """Options drawn from the network's search space."""
        return {}

    @property
    def notes(self) -> Mapping[str, str]:
        """What a reader of its results must know of this network on this problem ("padding"), in words; by default nothing."""
        return {}

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """Forecast y (batch, horizon, outputs, targets, quantiles) from x and known (shapes above)."""
        state: State = {"x": x, "known": known}
        for block in self.blocks:
            state = block(state)
        return state["y"]

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Set buffers from training windows before gradient descent begins (periods, correlations); by default nothing.

        What is set must be a persistent buffer: it is saved with the weights, and never changes with an input.
        """

    def most_windows(self, budget_s: float) -> int | None:
        """How many training windows a closed form is fitted on within that time, an even sample of them; None: all there are."""
        return None

    def forward_map(self, x: Tensor, known: Tensor) -> Tensor:
        """What `forward` says of the patch around every site, computed on the whole grid at once; only where `maps` is true.

        x (batch, history, rows, columns, features) of all sites, `valid` included; known as in `forward`.
        Returns (batch, horizon, rows · columns, targets, quantiles).
        """
        raise TypeError(f"{type(self).__name__} forecasts patch by patch; it has no form for whole maps")

    def fit_closed_form(self, batches: Iterable[Batch]) -> None:
        """Fit without gradients from one pass over training batches; only for `closed_form` networks."""
        raise TypeError(f"{type(self).__name__} is trained by gradient descent; it has no closed form")

    def statistics(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Sums over training batches, float64, which add up over owners; only where `additive`."""
        raise TypeError(f"{type(self).__name__} is not fitted from sums")

    def solve(self, statistics: Mapping[str, Tensor]) -> None:
        """Fit from what `statistics` gave, or from the sum of several such; only where `additive`."""
        raise TypeError(f"{type(self).__name__} is not fitted from sums")
