"""A forecast's answer as JSON.

{"bundle", "version", "digest", "precision": "fp32" or "int8", "times": [ISO 8601 …], "units": {target: unit},
 "forecasts": {site: {target: [horizon values]}}, "quantiles": {site: {target: {"0.1": [...]}}} (where the model has them),
 "intervals": {"0.8": {site: {target: [[low, high] of each step]}}} (where they are asked for)}

Quantiles are as the model says them; intervals are calibrated (see cellwright/conformal.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from cellwright.bundle.accuracy import point
from cellwright.bundle.problem import ServedProblem
from cellwright.conformal import COVERAGES, Conformal
from cellwright.edge.request import Asked, RequestError


def answer(
    asked: Asked, forecast: np.ndarray, problem: ServedProblem, index: Mapping[str, int], conformal: Conformal | None = None
) -> dict[str, Any]:
    """Times, units and forecasts. `forecast`: (batch, horizon, outputs, targets, quantiles), raw units.

    `conformal` makes the intervals, where any are asked for.

    Raises:
        RequestError: 422 where the model, or an interval, gives no finite number.
    """
    outputs = forecast[0].transpose(1, 0, 2, 3) if problem.inputs == "all" else forecast[:, :, 0]
    by_site = outputs[[index[s] for s in asked.sites]] if problem.inputs == "all" else outputs
    if not np.isfinite(by_site).all():
        raise RequestError(
            422, "the model gives no number for this history; check that its values are in the units of the bundle"
        )
    out: dict[str, Any] = {
        "times": list(_times(problem.clock, problem.cadence_ms, problem.horizon, asked.first_ms)),
        "units": {target: problem.units[target] for target in problem.targets},
        "forecasts": _by_target(asked.sites, problem.targets, point(by_site, problem.quantiles)),
    }
    if problem.quantiles:
        each = [_by_target(asked.sites, problem.targets, by_site[..., q]) for q in range(len(problem.quantiles))]
        out["quantiles"] = {
            site: {t: {str(q): e[site][t] for q, e in zip(problem.quantiles, each, strict=True)} for t in problem.targets}
            for site in asked.sites
        }
    if asked.intervals and conformal is not None:
        out["intervals"] = _intervals(asked, by_site, problem, conformal, [index[s] for s in asked.sites])
    return out


def _intervals(
    asked: Asked, by_site: np.ndarray, problem: ServedProblem, conformal: Conformal, places: list[int]
) -> dict[str, Any]:
    """Coverage -> site -> target -> [low, high] of each step. `by_site`: (sites, horizon, targets, quantiles)."""
    levels = conformal.quantiles(by_site.transpose(1, 0, 2, 3)[None], places)[0].transpose(1, 0, 2, 3)
    if not np.isfinite(levels).all():
        raise RequestError(422, "the intervals of this bundle are not finite for this forecast; leave 'intervals' out")
    ends = {f"{share:g}": levels[..., list(COVERAGES[share])] for share in asked.intervals}
    return {share: _by_target(asked.sites, problem.targets, pairs) for share, pairs in ends.items()}


def _by_target(sites: Iterable[str], targets: tuple[str, ...], values: np.ndarray) -> dict[str, dict[str, list[Any]]]:
    """values: (sites, horizon, targets), or pairs of them."""
    listed = values.swapaxes(1, 2).tolist()
    return {site: dict(zip(targets, rows, strict=True)) for site, rows in zip(sites, listed, strict=True)}


@lru_cache(maxsize=256)  # all devices ask about the same few steps
def _times(clock: str, cadence_ms: float, horizon: int, first_ms: int) -> tuple[str, ...] | tuple[int, ...]:
    each = [first_ms + round(step * cadence_ms) for step in range(horizon)]
    if clock == "relative":
        return tuple(each)
    return tuple(datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z") for ms in each)
