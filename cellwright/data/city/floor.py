"""The noise floor of `city`: the error that remains when the process itself is known.

Two forecasters are measured, both on the last tenth of the rows (the test span of an 80/10/10 split) and one to three steps of
ten minutes ahead. Both know every parameter of the process, the calendar, and the schedule and size of the events.

`floor` also knows the latent activity of every cell at the last measured step. Its MAE is that of the conditional median: traffic
rises with the activity and all chance is symmetric, so the median is the traffic of the expected activity, exactly. Its RMSE
is that of the conditional mean (five-point Gauss–Hermite quadrature). On average nobody can do better.

`filtered` knows only what was measured: a scalar Kalman filter a cell estimates the activity from the past of the network. It is
an example, not a bound: the best forecaster that has only the past lies between the two.

Steps of a cell that is down, or whose row is missing, do not count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cellwright.data.city.exact import growth, saturate
from cellwright.data.city.land import Land
from cellwright.data.city.options import CityOptions
from cellwright.data.city.process import Day, commute_course, delay_steps, inflow, innovation, memory

HORIZON = 3  # steps
_NODES = ((0.0, 0.5333333333333333), (1.3556261799742659, 0.2220759220056126), (-1.3556261799742659, 0.2220759220056126),
          (2.8569700138728056, 0.011257411327720689), (-2.8569700138728056, 0.011257411327720689))  # fmt: skip


def first_row(options: CityOptions) -> int:
    """First row of the last tenth."""
    rows = measured_days(options) * options.steps
    return rows - rows // 10


def measured_days(options: CityOptions) -> int:
    """Days of the benchmark; those after them are for watching drift."""
    return options.benchmark_days or options.days


def kept_from(options: CityOptions) -> int:
    """First day that `measure` needs: two before the last tenth, in which the filter settles."""
    return max(0, first_row(options) // options.steps - 2)


def measure(options: CityOptions, land: Land, kept: list[Day]) -> dict[str, Any] | None:
    """Errors of `floor` and `filtered` in Mbit/s, overall and by step; None if the process is too short or too coarse for them.

    kept: the days from `kept_from` on, up to `measured_days`.
    """
    horizon = min(HORIZON, delay_steps(options))
    start = max(first_row(options) - kept[0].day * options.steps, 1) if kept else 0
    rows = len(kept) * options.steps
    if not horizon or rows - start < horizon + 1:
        return None
    alive = ~_joined([day.down | day.lost for day in kept])
    truth = _joined([day.features["traffic_mbps"] for day in kept]).astype(np.float64)
    states, flows = _joined([day.activity for day in kept]), _joined([day.commuting for day in kept])
    estimates, expected = _filter(options, land, _joined([day.observed for day in kept]), alive)
    origins = np.arange(start, rows - horizon + 1)
    summary = {
        "floor": _errors(options, land, kept, truth, alive, origins, states, flows, horizon),
        "filtered": _errors(options, land, kept, truth, alive, origins, estimates, expected, horizon),
    }
    return {"steps": horizon, "first_row": first_row(options), "unit": "Mbit/s", **summary}


def _errors(
    options: CityOptions, land: Land, kept: list[Day], truth: np.ndarray, alive: np.ndarray,
    origins: np.ndarray, states: np.ndarray, flows: np.ndarray, horizon: int,
) -> dict[str, Any]:  # fmt: skip
    """MAE of the median and RMSE of the mean, given the states (rows, sites) at the step before each origin."""
    phi, new = memory(options), innovation(options)
    demand, capacity = (
        _joined([day.demand_mbps for day in kept]),
        np.repeat([d.capacity_mbps for d in kept], options.steps, axis=0),
    )
    centre, variance = states[origins - 1], land.burst * land.burst
    absolute, squared, counts = [], [], []
    for step in range(horizon):
        rows = origins + step
        centre = phi * centre + flows[rows]
        variance = variance + new * new * _power(phi * phi, step)
        good, wanted = alive[rows], truth[rows]
        median = saturate(demand[rows] * growth(centre), capacity[rows])
        spread = np.sqrt(variance)
        mean = np.zeros_like(median)
        for node, weight in _NODES:
            mean = mean + weight * saturate(demand[rows] * growth(centre + spread * node), capacity[rows])
        absolute.append(_exact_sum(np.abs(median - wanted)[good]))
        squared.append(_exact_sum(np.square(mean - wanted)[good]))
        counts.append(int(np.count_nonzero(good)))
    total = max(sum(counts), 1)
    return {
        "mae": round(sum(absolute) / total, 4),
        "rmse": round(float(np.sqrt(sum(squared) / total)), 4),
        "mae_by_step": [round(a / max(n, 1), 4) for a, n in zip(absolute, counts, strict=True)],
    }


def _filter(options: CityOptions, land: Land, observed: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, sites) estimates of the activity from observations up to each row, and of the inflow at each row."""
    phi, delay, courses = memory(options), delay_steps(options), commute_course(options)
    gain = _gain(options, land)
    states = np.zeros((len(observed) + delay, observed.shape[1]))
    flows = np.zeros_like(observed)
    for row in range(len(observed)):
        flows[row] = inflow(land, courses, row % options.steps, states[row])
        ahead = phi * states[row + delay - 1] + flows[row]
        states[row + delay] = np.where(alive[row], ahead + gain * (observed[row] - ahead), ahead)
    return states[delay:], flows


def _gain(options: CityOptions, land: Land) -> np.ndarray:
    """(sites,) steady gain of a scalar Kalman filter."""
    phi, new, noise = memory(options), innovation(options), land.burst * land.burst
    variance = np.full(len(noise), 0.1)
    for _ in range(200):
        gain = variance / (variance + noise)
        variance = phi * phi * (variance * (1.0 - gain)) + new * new
    return variance / (variance + noise)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts)


def _power(base: float, times: int) -> float:
    result = 1.0
    for _ in range(times):
        result *= base
    return result


def _exact_sum(values: np.ndarray) -> float:
    """A sum to a thousandth, over integers: the same in any order of adding."""
    return int(np.rint(values * 1000.0).astype(np.int64).sum()) / 1000.0
