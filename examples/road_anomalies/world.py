"""Roads, vehicles and what they record. All of it is generated, from one seed; nothing is measured anywhere.

A road has smooth asphalt, cobbles and stretches of potholes. Ahead of most pothole stretches the surface is cracked, and some cracked
surface leads to none: it was patched. A vehicle feels each metre through its own springs and its own sensor, the more the faster it
drives. What it records a second: the energy of its vertical acceleration, its speed, and whether it drove over potholes. Which
vehicles drive which roads, how fast and with which sensor differs, so that no two owners' data are alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellwright.panel import Feature, Panel, PanelSchema, Segment

DATASET = "road-anomalies"
ROAD_M = 6000  # length of a region's loop
FEATURES = (
    Feature(name="vibration", unit="m/s²", low=0),
    Feature(name="speed", unit="m/s", low=0),
    Feature(name="anomaly", unit="1", low=0, high=1),
)
FOREIGN = {"Vert.Acc": "vibration", "Geschwindigkeit": "speed", "Schlagloch": "anomaly"}  # names of one maker's vehicles
_START_MS = 1_764_547_200_000  # 2025-12-01 00:00 UTC


@dataclass(frozen=True)
class Vehicle:
    """One smart vehicle."""

    name: str
    region: str  # the roadside unit whose road it drives
    seconds_per_step: float  # of training, on its computer
    cpus: float  # free for training
    gain: float  # of its springs and sensor
    noise: float  # of its sensor, m/s²
    cruise: float  # m/s
    foreign: bool = False  # other names and units, twice the cadence
    share: float = 1.0  # of the time that it recorded

    def own(self, seed: int) -> int:
        """A seed of its own."""
        return int(np.random.default_rng([seed, *self.name.encode()]).integers(2**31))


@dataclass(frozen=True)
class World:
    """Who there is."""

    regions: tuple[str, ...]
    vehicles: tuple[Vehicle, ...]
    rows: int  # seconds that each recorded
    seed: int

    def vehicle(self, name: str) -> Vehicle:
        """A vehicle by its name."""
        return next(v for v in self.vehicles if v.name == name)


def world(*, regions: int, per_region: int, spare: int, rows: int, seed: int) -> World:
    """`per_region` vehicles a region, and `spare` more with little room for training. The first of all reports in other units, the last
    of the last region has a slow computer, and the last spare one was switched off most of the time."""
    rng, names = np.random.default_rng(seed), tuple(f"rsu-{i}" for i in range(1, regions + 1))
    made = []
    for number in range(regions * per_region + spare):
        regular = number < regions * per_region
        slow = number == regions * per_region - 1
        made.append(
            Vehicle(
                name=f"car-{number + 1:02d}",
                region=names[number // per_region if regular else number % regions],
                seconds_per_step=0.3 if slow else round(float(rng.uniform(0.04, 0.06)), 3),
                cpus=4.0 if regular else 1.1,
                gain=round(float(rng.uniform(0.6, 1.6)), 2),
                noise=round(float(rng.uniform(0.05, 0.25)), 2),
                cruise=round(float(rng.uniform(9, 18)), 1),
                foreign=number == 0,
                share=0.1 if number == regions * per_region + spare - 1 else 1.0,
            )
        )
    return World(names, tuple(made), rows, seed)


def road(region: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(roughness, potholes) of a region's loop, a value a metre; the share of cobbles and potholes differs by region."""
    rng = np.random.default_rng([seed, *region.encode()])
    rough, holes, at = np.full(ROAD_M, 0.3), np.zeros(ROAD_M, bool), 0
    cobbled, patched = rng.uniform(0.1, 0.3), rng.uniform(0.15, 0.3)
    while at < ROAD_M:
        at += int(rng.integers(100, 320))
        if rng.random() < cobbled:
            rough[at : at + 150] = 0.9
            continue
        approach, stretch = int(rng.integers(60, 130)), int(rng.integers(30, 80))
        cracked = slice(at, at + approach)
        rough[cracked] = np.where(rng.random(rough[cracked].size) < 0.25, rng.uniform(1.0, 2.2), rough[cracked])
        at += approach
        if rng.random() > patched:
            rough[at : at + stretch] = rng.uniform(1.2, 2.8, rough[at : at + stretch].size)
            holes[at : at + stretch] = True
        at += stretch
    return rough, holes


def drive(vehicle: Vehicle, place: World, *, again: int = 0) -> Panel:
    """What a vehicle recorded, as its maker has it; `again`: another drive of the same vehicle, which no training sees."""
    parts = 2 if vehicle.foreign else 1  # samples a second
    rng = np.random.default_rng([vehicle.own(place.seed), again])
    rough, holes = road(vehicle.region, place.seed)
    rows = place.rows * parts
    speed = _speeds(vehicle, rows, parts, rng)
    edges = (rng.uniform(0, ROAD_M) + np.concatenate(([0.0], np.cumsum(speed / parts)))).astype(int)  # metres; (rows + 1,)
    metres = np.arange(edges[0], edges[-1]) % ROAD_M
    felt = np.add.reduceat(np.abs(rng.normal(0, rough[metres])), edges[:-1] - edges[0]) / np.diff(edges)
    anomaly = np.maximum.reduceat(holes[metres], edges[:-1] - edges[0])
    vibration = np.abs(vehicle.gain * (speed / 12) ** 1.3 * felt + rng.normal(0, vehicle.noise, rows))
    missing = rng.random(rows) >= vehicle.share
    columns = {"vibration": vibration, "speed": speed, "anomaly": anomaly}
    return _panel(vehicle, rows, {name: np.where(missing, np.nan, values) for name, values in columns.items()}, parts)


def _speeds(vehicle: Vehicle, rows: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """(rows,) m/s, wandering around the vehicle's usual speed."""
    speed, now = np.empty(rows), vehicle.cruise
    for row in range(rows):
        now += (0.08 * (vehicle.cruise - now) + rng.normal(0, 0.7)) / parts
        speed[row] = now = min(max(now, 3.0), 25.0)
    return speed


def _panel(vehicle: Vehicle, rows: int, columns: dict[str, np.ndarray], parts: int) -> Panel:
    """In the unified form, or in another maker's: other names, cm/s², km/h, per cent, half seconds."""
    schema, values = (
        unified_schema((vehicle.name,), rows),
        {name: array[:, None].astype(np.float32) for name, array in columns.items()},
    )
    if vehicle.foreign:
        factor, unit = (
            {"vibration": 100.0, "speed": 3.6, "anomaly": 100.0},
            {"vibration": "cm/s²", "speed": "km/h", "anomaly": "%"},
        )
        theirs = {ours: name for name, ours in FOREIGN.items()}
        features = tuple(Feature(name=theirs[f.name], unit=unit[f.name], low=0) for f in FEATURES)
        values = {theirs[name]: array * np.float32(factor[name]) for name, array in values.items()}
        change = {"features": features, "targets": (theirs["anomaly"],), "cadence_s": 1 / parts}
        schema = schema.model_copy(update=change)
    return Panel.from_arrays(schema, values)


def unified_schema(sites: tuple[str, ...], rows: int) -> PanelSchema:
    """The form that the request asks for; a site is a vehicle."""
    return PanelSchema(
        dataset=DATASET,
        sites=sites,
        features=FEATURES,
        targets=("anomaly",),
        cadence_s=1.0,
        clock="utc",
        start_ms=_START_MS,
        rows=rows,
        segments=(Segment(name="drive", start=0, stop=rows),),
        licence="CC0-1.0",
        attribution="generated by examples/road_anomalies",
    )
