"""The process itself: activity with memory, traffic out of it, and the gNB-like features around it; day by day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cellwright.data.city import crowds
from cellwright.data.city.exact import growth, halfwords, normal, raw, rounded, saturate, stream
from cellwright.data.city.land import Land
from cellwright.data.city.options import DAY_S, CityOptions

MEMORY_S = 9000  # time after which 1/e of an activity is left
SPREAD = 0.15  # of activity, log scale
DELAY_S = 1800  # how long commuters take
COMMUTE_PER_S = 0.08 / 600  # how fast their activity arrives
_MORNING, _EVENING = (6.5, 9.5), (16.0, 19.0)  # hours
_PARTS = (0.40, 0.60, 0.693)  # innovation of the cell, its surroundings, the city; squares add up to 1
_STATE, _NOISE = 4, 5  # random streams


@dataclass(frozen=True)
class Day:
    """A day of the truth; arrays are (steps, sites) unless said."""

    day: int
    activity: np.ndarray  # x, the latent state
    commuting: np.ndarray  # what x gets from elsewhere, known DELAY_S before
    observed: np.ndarray  # x + burst
    demand_mbps: np.ndarray  # without chance, crowds included
    capacity_mbps: np.ndarray  # (sites,)
    down: np.ndarray  # bool: outage
    lost: np.ndarray  # bool: no row arrived
    features: dict[str, np.ndarray]  # as measured, float32
    events: list[crowds.Event]  # that begin on this day
    outages: list[crowds.Outage]


def memory(options: CityOptions) -> float:
    """φ: the share of activity that is left after a step."""
    return 1.0 - options.cadence_s / MEMORY_S


def innovation(options: CityOptions) -> float:
    """Standard deviation of what a step adds to the activity of a cell."""
    phi = memory(options)
    return SPREAD * float(np.sqrt(1.0 - phi * phi))


def delay_steps(options: CityOptions) -> int:
    """Steps that commuters take; forecasts no longer than this know what will arrive."""
    return DELAY_S // options.cadence_s


def days(options: CityOptions, land: Land) -> Iterator[Day]:
    """The days one after the other, each from its own random streams, so that none depends on how many follow."""
    recent = np.repeat(SPREAD * normal(stream(options.seed, _STATE), 1, options.sites), delay_steps(options), axis=0)
    events: list[crowds.Event] = []
    outages: list[crowds.Outage] = []
    for day in range(options.days):
        rng = stream(options.seed, _NOISE, day)
        new_events, new_outages = crowds.events(options, day), crowds.outages(options, day)
        events, outages = _still(events, day, options) + new_events, _still(outages, day, options) + new_outages
        activity, commuting = _evolve(options, land, recent, _innovations(options, rng))
        base, capacity = crowds.changed(options, land, day)
        demand = base + crowds.crowd(options, day, events)
        observed = activity + land.burst * normal(rng, *activity.shape)
        down = crowds.down(options, day, outages)
        features = _measure(options, land, rng, demand * growth(observed), capacity, down)
        yield Day(day, activity, commuting, observed, demand, capacity, down, crowds.lost(options, day), features,
                  new_events, new_outages)  # fmt: skip
        recent = activity[-delay_steps(options) :]


def commute_course(options: CityOptions) -> np.ndarray:
    """(2, steps): how fast activity arrives by time of day, in the morning and in the evening."""
    hour = np.arange(options.steps) * options.cadence_s / (DAY_S // 24)
    strength = COMMUTE_PER_S * options.cadence_s
    return np.stack([np.where((hour >= low) & (hour < high), strength, 0.0) for low, high in (_MORNING, _EVENING)])


def inflow(land: Land, courses: np.ndarray, step: int, earlier: np.ndarray) -> np.ndarray:
    """(sites,) what the activity `earlier`, DELAY_S ago, brings at a step of the day."""
    total = np.zeros(earlier.shape)
    for course, weight, source in zip(courses, land.commutes, (land.arriving, land.returning), strict=True):
        if course[step]:
            mean = ((earlier[source[0]] + earlier[source[1]]) + (earlier[source[2]] + earlier[source[3]])) * 0.25
            total = total + course[step] * weight * mean
    return total


def _evolve(options: CityOptions, land: Land, recent: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x(t) = φ·x(t-1) + inflow(x(t-delay)) + new(t) over a day, after the `recent` (delay, sites) states."""
    phi, courses, delay = memory(options), commute_course(options), len(recent)
    states = np.concatenate([recent, np.zeros_like(new)])
    flows = np.zeros_like(new)
    for step in range(len(new)):
        flows[step] = inflow(land, courses, step, states[step])
        states[step + delay] = phi * states[step + delay - 1] + flows[step] + new[step]
    return states[delay:], flows


def _innovations(options: CityOptions, rng: np.random.Generator) -> np.ndarray:
    """(steps, sites): partly a cell's own, partly shared with its eight neighbours, partly with the whole city."""
    rows, columns = options.grid
    own = normal(rng, options.steps, options.sites)
    city = normal(rng, options.steps, 1)
    field = np.pad(normal(rng, options.steps, options.sites).reshape(-1, rows, columns), ((0, 0), (1, 1), (1, 1)), mode="wrap")
    wide = field[:, :, :-2] + field[:, :, 1:-1] + field[:, :, 2:]
    around = ((wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]) / 3.0).reshape(options.steps, options.sites)
    return innovation(options) * (_PARTS[0] * own + _PARTS[1] * around + _PARTS[2] * city)


def _measure(
    options: CityOptions, land: Land, rng: np.random.Generator, demand: np.ndarray, capacity: np.ndarray, down: np.ndarray
) -> dict[str, np.ndarray]:
    """What the network reports: traffic, users, PRB share, MCS; all 0 where a cell is down."""
    chance = halfwords(raw(rng, *demand.shape)) / 65535.0 - 0.5  # three uniform numbers, ±0.5
    up = ~down
    traffic = saturate(demand, capacity) * up
    load = traffic / capacity
    mcs = np.clip(land.mcs - 6.0 * _around(options, load) + 1.5 * chance[..., 0], 0.0, 28.0) * up
    prb = np.clip(load * (1.0 + 0.06 * chance[..., 1]), 0.0, 1.0)
    users = demand / land.rate * (1.0 + 0.3 * chance[..., 2]) * up
    return {
        "traffic_mbps": rounded(traffic, 100),
        "users": rounded(users, 1),
        "prb_share": rounded(prb, 10_000),
        "mcs": rounded(mcs, 10),
    }


def _around(options: CityOptions, load: np.ndarray) -> np.ndarray:
    """Mean load of the four neighbours (the grid wraps): their interference."""
    field = load.reshape(-1, *options.grid)
    total = (np.roll(field, 1, 1) + np.roll(field, -1, 1)) + (np.roll(field, 1, 2) + np.roll(field, -1, 2))
    return (total * 0.25).reshape(load.shape)


def _still(items: list, day: int, options: CityOptions) -> list:
    """Those that can still be felt on a day (crowds linger for up to two hours)."""
    return [item for item in items if item.stop + 7200 // options.cadence_s > day * options.steps]
