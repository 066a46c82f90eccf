"""What every KPI keeps to. A KPI is a file of this folder; its name is the key in `rank.weights`, scores and leaderboard.

A member declares:

    title             for people: "Latency p99"
    unit              of its value; "target" stands for the unit of the forecast feature, "money" for `prices.currency`
    lower_is_better   which way is better
    span              "forecast": computed from `Forecasts`, once for the validation and once for the test span;
                      "cost": computed once, from `Costs`
                      "probe": computed for the finalists alone, by the step `scorecard`, from `Probes`
    ideal             its best possible value
    compute(evidence) its value; None where the evidence for it is absent (never 0 for want of a meter)

A KPI of span "probe" also declares `group`, under which the report shows it, and `plain`: what it says, for people. Others may
declare a `group`; without one, those of forecasts are of "accuracy" and those of costs of "cost" (`group_of`).

Its docstring gives the formula and where it is from. Masked targets never count. KPIs of forecasts and costs are cheap, so every
candidate has them; those of probes are dear (`cost_class`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np

from cellwright.families import member, members
from cellwright.kpis._events import Confusion, confusion
from cellwright.kpis._reliability import Reliability, Sliced, reliability
from cellwright.params import Prices
from cellwright.results import EnergyReading

if TYPE_CHECKING:
    from cellwright.kpis._probes import Probes

Span = Literal["forecast", "cost", "probe"]
Group = Literal["robustness", "stability", "generalisation", "interpretability", "cost and return"]
PACKAGE = "cellwright.kpis"


@dataclass(frozen=True)
class Forecasts:
    """Forecast and truth of one span, in the targets' units. Legend: W windows, F horizon, S sites, T targets."""

    forecast: np.ndarray  # (W, F, S, T)
    truth: np.ndarray  # (W, F, S, T)
    mask: np.ndarray  # (W, F, S, T) bool: really measured
    naive_mae: np.ndarray | None = None  # (S, T) in-sample error of the naive forecast, NaN where unknown; see `mase`
    grid: tuple[int, int] | None = None  # (rows, columns) that the sites fill row-major
    quantiles: Sliced | None = None  # (W, F, S, T, Q) predictive quantiles, calibrated on other windows than these
    levels: tuple[float, ...] = ()  # (Q,)
    threshold_p90: np.ndarray | None = None  # (S, T) 90th percentile of a site's load on its training rows, NaN where unknown

    @cached_property
    def reliability(self) -> Reliability | None:
        """What the calibration KPIs are read from; None without quantiles."""
        return None if self.quantiles is None else reliability(self.levels, self.quantiles, self.truth, self.mask)

    @cached_property
    def busy(self) -> Confusion | None:
        """Busy hours foreseen and missed; None without a threshold."""
        return None if self.threshold_p90 is None else confusion(self.forecast, self.truth, self.mask, self.threshold_p90)

    @cached_property
    def error(self) -> np.ndarray:
        """(count,) forecast - truth of the targets that count, float64."""
        return self.forecast[self.mask].astype(np.float64) - self.truth[self.mask]

    @property
    def targets(self) -> list[Forecasts]:
        """One `Forecasts` for each target; of the point forecasts alone."""
        return [
            Forecasts(
                self.forecast[..., t : t + 1],
                self.truth[..., t : t + 1],
                self.mask[..., t : t + 1],
                None if self.naive_mae is None else self.naive_mae[:, t : t + 1],
                self.grid,
            )
            for t in range(self.forecast.shape[-1])
        ]


@dataclass(frozen=True)
class Runtime:
    """How fast one runtime answers: torch or ONNX Runtime."""

    latencies_s: np.ndarray  # (calls,) of single forecasts, batch 1
    throughput_per_s: float  # site forecasts a second, in batches


@dataclass(frozen=True)
class Costs:
    """What a candidate costs to train, keep and run. None: not measured."""

    torch: Runtime | None = None
    onnx: Runtime | None = None
    parameters: int | None = None
    macs: int | None = None  # of one forecast, batch 1
    bundle_bytes: int | None = None
    peak_memory_bytes: int | None = None
    train_s: float | None = None
    train_cpu_s: float | None = None
    train_gpu_s: float | None = None
    train_energy: EnergyReading | None = None
    forecast_energy: EnergyReading | None = None
    forecasts_metered: int = 0  # site forecasts that `forecast_energy` covers
    prices: Prices = field(default_factory=Prices)


class Kpi(Protocol):
    """A member of the family."""

    title: str
    unit: str
    lower_is_better: bool
    span: Span
    ideal: float
    compute: Callable[[Any], float | None]


class ProbeKpi(Kpi, Protocol):
    """A member of span "probe"."""

    group: Group
    plain: str


def kpi(name: str) -> Kpi:
    """The KPI of that name.

    Raises:
        UnknownName: there is none; the message lists those there are.
    """
    return cast(Kpi, member(PACKAGE, name, what="KPI"))


def names(span: Span | None = None) -> tuple[str, ...]:
    """Names of all KPIs, or of those of one span."""
    return tuple(name for name in members(PACKAGE) if span is None or kpi(name).span == span)


def forecast_kpis(evidence: Forecasts) -> dict[str, float | None]:
    """Every accuracy KPI of one span."""
    return {name: kpi(name).compute(evidence) for name in names("forecast")}


def cost_kpis(evidence: Costs) -> dict[str, float | None]:
    """Every cost KPI."""
    return {name: kpi(name).compute(evidence) for name in names("cost")}


def probe_kpis(evidence: Probes) -> dict[str, float | None]:
    """Every dear KPI of one finalist."""
    return {name: kpi(name).compute(evidence) for name in names("probe")}


def probe_kpi(name: str) -> ProbeKpi:
    """The dear KPI of that name.

    Raises:
        UnknownName: there is no KPI of that name.
    """
    return cast(ProbeKpi, kpi(name))


def cost_class(name: str) -> Literal["cheap", "dear"]:
    """Whether every candidate has the KPI, or the finalists alone."""
    return "dear" if kpi(name).span == "probe" else "cheap"


def group_of(name: str) -> str:
    """Under which heading a KPI is shown."""
    member = kpi(name)
    return str(getattr(member, "group", "accuracy" if member.span == "forecast" else "cost"))


def percentile_ms(runtime: Runtime | None, percent: float) -> float | None:
    """A percentile of single-forecast latencies, milliseconds (linear interpolation between order statistics)."""
    return None if runtime is None else float(np.percentile(runtime.latencies_s, percent)) * 1000
