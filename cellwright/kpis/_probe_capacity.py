"""Probe: how much capacity stands ready if it follows the forecast, and how much if it stays at each site's peak.

Legend: W windows, F horizon, S sites.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellwright.errors import TrainingError
from cellwright.kpis._bed import Bed
from cellwright.kpis._probes import Found, Probes
from cellwright.kpis._spans import read_arrays
from cellwright.results import Scored

FEEDS = ("return_per_site_day",)
_PEAK = 0.995  # percentile of the training rows that static capacity is made for
_DAY_S = 86_400


@dataclass(frozen=True)
class Load:
    """Forecast and truth of the first target in one span."""

    forecast: np.ndarray  # (W, F, S)
    truth: np.ndarray  # (W, F, S)
    mask: np.ndarray  # (W, F, S) bool: really measured

    def violated(self, provided: np.ndarray) -> float:
        """Share of the measured intervals whose load exceeds what was provided, (W, F, S) or wider."""
        return float((self.truth > provided)[self.mask].mean())

    def mean(self, provided: np.ndarray) -> float:
        """Mean over the measured intervals."""
        return float(np.broadcast_to(provided, self.truth.shape)[self.mask].mean(dtype=np.float64))


def probe(bed: Bed) -> Found:
    """Size the margin on the validation span, and provide for the test span.

    Raises:
        TrainingError: a span without a measured target, or a site without any in the training rows.
    """
    prices, key = bed.params.prices, bed.trained.key
    truth, own = read_arrays(bed.ws.scores / "truth.npz"), read_arrays(bed.ws.score(key, ".npz"))
    validation, test = (
        Load(own[f"{s}_forecast"][..., 0], truth[f"{s}_truth"][..., 0], truth[f"{s}_mask"][..., 0])
        for s in ("validation", "test")
    )
    static = peaks(bed)
    extra = margin(validation, static, prices.violation_share)
    ready = provided(test.forecast, static, extra)
    each = Scored.read(bed.ws.score(key)).cost.get("cost_per_1000_forecasts")
    evidence = Probes(
        static_capacity=test.mean(static),
        forecast_capacity=test.mean(ready),
        capacity_price_h=prices.capacity_per_unit_h,
        forecasts_per_day=_DAY_S / bed.forecaster.problem.cadence_s,
        forecast_price=None if each is None else each / 1000,
    )
    note = (
        f"margin {extra:.1%} of the peak; load above capacity in {test.violated(ready):.2%} of intervals, {test.violated(static):.2%} "
        "if static"
    )
    unpriced = {} if each is not None else {FEEDS[0]: "the price of a forecast is not known: its energy was not metered"}
    return Found(evidence=evidence, notes={FEEDS[0]: note}, reasons=unpriced)


def peaks(bed: Bed) -> np.ndarray:
    """(S,) percentile 99.5 of each site's load in the training rows."""
    target, rows = bed.forecaster.problem.targets[0], slice(*bed.spans.train)
    load = np.where(bed.panel.good(target)[rows], bed.panel.values(target)[rows], np.nan)
    if silent := np.flatnonzero(np.isnan(load).all(axis=0)).tolist():
        raise TrainingError(f"site {bed.panel.schema.sites[silent[0]]} has no measured load in the training rows, hence no peak")
    found: np.ndarray = np.nanquantile(load, _PEAK, axis=0)
    return found


def margin(load: Load, static: np.ndarray, violations: float) -> float:
    """The smallest margin, as a share of the peak and at least 0, with which at most `violations` of the intervals have more load.

    A site whose peak is 0 is left out: there is no share of nothing, and a margin of it would stand for no capacity.

    Raises:
        TrainingError: no interval of the others was measured.
    """
    busy = static > 0
    lack = np.sort(((load.truth - load.forecast)[..., busy] / static[busy])[load.mask[..., busy]])
    if not len(lack):
        raise TrainingError(
            "the validation span has no measured target of a site with a peak above 0, so that no margin can be sized"
        )
    allowed = math.floor(violations * len(lack))
    return max(0.0, float(lack[len(lack) - 1 - allowed])) if allowed < len(lack) else 0.0


def provided(forecast: np.ndarray, static: np.ndarray, extra: float) -> np.ndarray:
    """(W, F, S) forecast + margin, at least 0; above the peak where that is forecast."""
    return np.maximum(forecast + extra * static, 0.0)
