"""What happens on single days: events at stadiums, outages, and the dated changes of the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cellwright.data.city.exact import raw, stream, uniform
from cellwright.data.city.land import Land
from cellwright.data.city.options import CityOptions

_EVENTS, _OUTAGES = 2, 3  # random streams
_CHANCE = (0.08, 0.08, 0.5, 0.08, 0.4, 0.7, 0.4)  # of an event, Monday to Sunday
_CROWD_MBPS = 420.0  # demand of a full stadium
_RINGS = ((0, 1.0, 0), (1, 0.4, 1200), (2, 0.18, 2400))  # distance in cells, share of the crowd, delay in seconds
_TAIL_S = 3600  # a crowd comes and goes within an hour
_OUTAGE_CHANCE = 1 / 120  # a cell and day
OLD_STADIUM = (0.25, 0.7)  # where the first one lies, shares of the grid's edges


@dataclass(frozen=True)
class Event:
    """A crowd: `start` and `stop` are steps since the first row."""

    site: int
    start: int
    stop: int
    demand_mbps: float


@dataclass(frozen=True)
class Outage:
    """A cell that is down for steps [start, stop) since the first row."""

    site: int
    start: int
    stop: int


def events(options: CityOptions, day: int) -> list[Event]:
    """Events that begin on a day, at every stadium there is by then."""
    found = []
    for number, (site, size, opened) in enumerate(_stadiums(options)):
        lot, hour, length, seats = uniform(stream(options.seed, _EVENTS, number, day), 4).tolist()
        weekday = (day + _first_weekday(options)) % 7
        if day >= opened and lot < _CHANCE[weekday] + (0.15 if opened else 0.0):
            start = day * options.steps + (28 + int(hour * 11)) * 1800 // options.cadence_s  # 14:00 to 19:00
            stop = start + (3 + int(length * 4)) * 1800 // options.cadence_s  # an hour and a half to three
            found.append(Event(site, start, stop, _CROWD_MBPS * size * (0.5 + 0.5 * seats)))
    return found


def crowd(options: CityOptions, day: int, happening: list[Event]) -> np.ndarray:
    """(steps, sites) Mbit/s of demand that the events' crowds bring on a day; neighbours feel them later and less."""
    demand = np.zeros((options.steps, options.sites))
    clock = np.arange(day * options.steps, (day + 1) * options.steps)
    for event in happening:
        for distance, share, delay_s in _RINGS:
            course = _presence(clock - delay_s // options.cadence_s, event, options)
            ring = list(_ring(options.grid, event.site, distance))
            demand[:, ring] = demand[:, ring] + (course * (event.demand_mbps * share))[:, None]
    return demand


def outages(options: CityOptions, day: int) -> list[Outage]:
    """Outages that begin on a day: half an hour to six hours each."""
    rng = stream(options.seed, _OUTAGES, day)
    lot, when, length = uniform(rng, 3, options.sites)
    half_hour = 1800 // options.cadence_s
    found = []
    for site in np.flatnonzero(lot < _OUTAGE_CHANCE).tolist():
        start = day * options.steps + int(when[site] * options.steps)
        found.append(Outage(site, start, start + max(3, half_hour) + int(length[site] * 11 * half_hour)))
    return found


def down(options: CityOptions, day: int, known: list[Outage]) -> np.ndarray:
    """(steps, sites) bool: which cells are down on a day."""
    first = day * options.steps
    mask = np.zeros((options.steps, options.sites), dtype=bool)
    for outage in known:
        mask[max(outage.start - first, 0) : max(outage.stop - first, 0), outage.site] = True
    return mask


def lost(options: CityOptions, day: int) -> np.ndarray:
    """(steps, sites) bool: rows that never arrived."""
    cells = options.steps * options.sites
    mask = np.zeros(cells, dtype=bool)
    count = round(options.missing_share * cells)
    mask[(raw(stream(options.seed, _OUTAGES, day, 1), count) % np.uint64(cells)).astype(np.int64)] = True
    return mask.reshape(options.steps, options.sites)


def changed(options: CityOptions, land: Land, day: int) -> tuple[np.ndarray, np.ndarray]:
    """Demand (steps, sites) of a day without chance, and capacity (sites,), after the layers that are there by then."""
    first = (day + _first_weekday(options)) % 7 * options.steps
    demand, capacity = land.weekly[first : first + options.steps].copy(), land.capacity.copy()
    for change in options.changes:
        if change.kind == "layer" and change.day <= day:
            block = change.block(options.grid)
            if change.size < 0:
                demand[:, block] = demand[:, block] * (1.0 + change.size)
            else:
                usual = np.cumsum(land.weekly[:, block], axis=0)[-1] / len(land.weekly)
                demand[:, block] = demand[:, block] + change.size * usual * land.streaming[:, None]
                capacity[block] = capacity[block] * (1.0 + change.size)
    return demand, capacity


def _stadiums(options: CityOptions) -> Iterator[tuple[int, float, int]]:
    """(site, size, first day) of each stadium; the old one is there from the start."""
    rows, columns = options.grid
    yield int(OLD_STADIUM[0] * rows) * columns + int(OLD_STADIUM[1] * columns), 1.0, 0
    for change in options.changes:
        if change.kind == "stadium":
            block = change.block(options.grid)
            yield block[len(block) // 2], change.size, change.day


def _presence(clock: np.ndarray, event: Event, options: CityOptions) -> np.ndarray:
    """How much of the crowd is there, 0–1: it arrives and leaves along a line of an hour each."""
    tail = _TAIL_S // options.cadence_s
    arriving = np.clip((clock - (event.start - tail)) / tail, 0.0, 1.0)
    leaving = np.clip((event.stop + tail - clock) / tail, 0.0, 1.0)
    return np.minimum(arriving, leaving)


def _ring(grid: tuple[int, int], site: int, distance: int) -> Iterator[int]:
    row, column = divmod(site, grid[1])
    for r in range(max(row - distance, 0), min(row + distance + 1, grid[0])):
        for c in range(max(column - distance, 0), min(column + distance + 1, grid[1])):
            if max(abs(r - row), abs(c - column)) == distance:
                yield r * grid[1] + c


def _first_weekday(options: CityOptions) -> int:
    return (options.start_ms // 86_400_000 + 3) % 7  # 1 January 1970 was a Thursday
