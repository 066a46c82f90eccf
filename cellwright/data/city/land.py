"""The map of the city: land use, traffic levels, capacities, weekly profiles and who commutes where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellwright.data.city.exact import growth, normal, raw, stream, uniform
from cellwright.data.city.options import CityOptions

USES = ("residential", "business", "mixed", "leisure", "transport")
RESIDENTIAL, BUSINESS, MIXED, LEISURE, TRANSPORT = range(5)

# Demand by hour 0–23, as a share of the use's usual peak: weekday, Saturday, Sunday.
_HOURS: dict[str, tuple[str, str, str]] = {
    "residential": (
        ".38 .26 .18 .15 .15 .20 .42 .68 .55 .42 .40 .42 .48 .46 .44 .48 .56 .68 .82 .92 1.0 .98 .82 .58",
        ".44 .32 .24 .19 .17 .18 .24 .36 .52 .66 .74 .76 .78 .74 .70 .70 .72 .76 .82 .88 .92 .88 .78 .62",
        ".46 .34 .25 .19 .17 .17 .21 .30 .46 .62 .74 .80 .84 .80 .74 .74 .78 .84 .92 1.0 1.0 .92 .74 .52",
    ),
    "business": (
        ".08 .07 .06 .06 .07 .10 .22 .48 .88 .98 1.0 .96 .70 .86 .98 .96 .90 .68 .42 .28 .20 .16 .13 .10",
        ".09 .08 .07 .06 .06 .07 .10 .14 .20 .26 .30 .32 .30 .28 .28 .26 .24 .22 .20 .18 .16 .14 .12 .11",
        ".09 .08 .07 .06 .06 .06 .08 .10 .13 .16 .18 .20 .20 .19 .18 .18 .18 .17 .16 .15 .14 .13 .11 .09",
    ),
    "mixed": (
        ".24 .17 .13 .11 .12 .16 .30 .50 .70 .74 .78 .86 .98 .86 .78 .78 .82 .90 .96 .90 .80 .70 .52 .36",
        ".34 .26 .20 .15 .13 .14 .18 .26 .42 .60 .78 .90 .98 .96 .94 .94 .94 .92 .90 .86 .82 .76 .64 .48",
        ".34 .25 .19 .14 .12 .12 .15 .21 .32 .44 .54 .62 .72 .70 .66 .64 .66 .68 .72 .74 .72 .62 .48 .34",
    ),
    "leisure": (
        ".18 .11 .07 .06 .06 .07 .10 .14 .20 .26 .32 .42 .54 .46 .40 .42 .50 .66 .84 .96 1.0 .88 .60 .32",
        ".66 .52 .38 .24 .14 .11 .12 .16 .26 .42 .58 .72 .84 .88 .90 .92 .94 .98 1.1 1.3 1.4 1.5 1.4 1.1",
        ".92 .74 .52 .32 .18 .12 .12 .15 .24 .42 .62 .80 .96 1.0 .98 .94 .88 .80 .76 .72 .62 .46 .30 .20",
    ),
    "transport": (
        ".10 .07 .06 .07 .12 .30 .66 1.0 .82 .46 .38 .42 .50 .46 .44 .52 .76 1.0 .90 .58 .38 .30 .24 .16",
        ".16 .11 .08 .08 .10 .14 .20 .28 .38 .46 .52 .56 .58 .56 .54 .54 .56 .56 .52 .46 .40 .36 .34 .26",
        ".18 .12 .08 .07 .08 .10 .14 .20 .28 .36 .42 .46 .48 .48 .48 .52 .60 .64 .62 .52 .42 .34 .26 .18",
    ),
}
_STREAMING = ".30 .18 .10 .07 .06 .07 .12 .20 .24 .26 .30 .34 .40 .42 .44 .52 .66 .90 1.3 1.7 1.9 1.8 1.3 .70"  # of new homes
_LEVEL_MBPS = np.array([90.0, 150.0, 130.0, 70.0, 180.0])  # usual peak demand of a cell
_BURST = np.array([0.065, 0.08, 0.075, 0.11, 0.125])  # relative spread of the unforeseeable, a use
_MAP_STREAM = 1


@dataclass(frozen=True)
class Land:
    """The cells, row-major; arrays are (sites,) unless said."""

    use: np.ndarray  # index into USES
    weekly: np.ndarray  # (steps in a week, sites) demand in Mbit/s without chance
    streaming: np.ndarray  # (steps in a day,) course of a new layer's demand, mean 1
    capacity: np.ndarray  # Mbit/s
    burst: np.ndarray  # spread of the burst, log scale
    mcs: np.ndarray  # modulation and coding scheme in an empty network, 0–28
    rate: np.ndarray  # Mbit/s of one active user
    arriving: np.ndarray  # (4, sites) cells whose activity reaches this one in the morning
    returning: np.ndarray  # (4, sites) … in the evening
    commutes: np.ndarray  # (2, sites) how strongly, 0–1, morning and evening


def build(options: CityOptions) -> Land:
    """The map of a seed and a grid; it does not depend on the number of days."""
    rng = stream(options.seed, _MAP_STREAM)
    sites = options.sites
    use, second = _uses(options.grid, rng)
    level = _LEVEL_MBPS[use] * growth(0.35 * normal(rng, sites))
    weekly = _weekly(options.steps, use, second, rng) * level
    homes, offices = np.flatnonzero(use == RESIDENTIAL), np.flatnonzero((use == BUSINESS) | (use == MIXED))
    everywhere = np.arange(sites)
    return Land(
        use=use,
        weekly=weekly,
        streaming=_streaming(options.steps),
        capacity=level * (0.9 + 0.9 * uniform(rng, sites)),
        burst=_BURST[use],
        mcs=14.0 + 10.0 * uniform(rng, sites),
        rate=0.8 + 1.2 * uniform(rng, sites),
        arriving=_choose(homes if len(homes) else everywhere, sites, rng),
        returning=_choose(offices if len(offices) else everywhere, sites, rng),
        commutes=np.stack([np.isin(use, (BUSINESS, MIXED, TRANSPORT)), np.isin(use, (RESIDENTIAL, LEISURE))]).astype(np.float64),
    )


def _uses(grid: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Main and second land use a cell: business in the middle, homes outside, a resort in a corner, a railway across."""
    rows, columns = grid
    r, c = (axis.reshape(-1) for axis in np.indices(grid))
    y, x = (r + 0.5) / rows, (c + 0.5) / columns
    away = (y - 0.5) * (y - 0.5) + (x - 0.45) * (x - 0.45) + 0.03 * (uniform(rng, rows * columns) - 0.5)
    use = np.where(away < 0.03, BUSINESS, np.where(away < 0.1, MIXED, RESIDENTIAL))
    use = np.where((y > 0.75) & (x > 0.8), LEISURE, use)
    use = np.where(r == rows * 2 // 5, np.where((c + r) % 2 == 0, TRANSPORT, use), use)
    use = np.where(uniform(rng, rows * columns) < 0.04, LEISURE, use)
    return use, (uniform(rng, rows * columns) * len(USES)).astype(np.int64)


def _weekly(steps: int, use: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(steps in a week, sites): three parts main use, one part second, up to 20 minutes early or late a cell."""
    table = np.stack([_course(" ".join([_HOURS[u][0]] * 5 + [_HOURS[u][1], _HOURS[u][2]]), steps) for u in USES], axis=1)
    week = 0.75 * table[:, use] + 0.25 * table[:, second]
    most = steps // 72
    shift = (uniform(rng, len(use)) * (2 * most + 1)).astype(np.int64) - most
    return week[(np.arange(len(week))[:, None] + shift) % len(week), np.arange(len(use))]


def _streaming(steps: int) -> np.ndarray:
    course = _course(_STREAMING, steps)
    return course * (len(course) / float(np.cumsum(course)[-1]))  # cumsum adds in order, sum does not


def _course(text: str, steps: int) -> np.ndarray:
    """Hourly knots joined by straight lines, round and round; `steps` values a day."""
    knots = np.array([float(word) for word in text.split()])
    per_hour = steps // 24
    after = np.concatenate([knots[1:], knots[:1]])
    share = np.arange(per_hour) / per_hour
    return (knots[:, None] * (1.0 - share) + after[:, None] * share).reshape(-1)


def _choose(among: np.ndarray, sites: int, rng: np.random.Generator) -> np.ndarray:
    """(4, sites) members of `among`, at random."""
    return among[(raw(rng, 4, sites) % np.uint64(len(among))).astype(np.int64)]
