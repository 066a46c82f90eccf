"""A small city in which a layer is added on day 40, and a champion that was trained before."""

from pathlib import Path

import numpy as np
import pytest

from cellwright.data.city import Change, CityOptions, land, process
from cellwright.panel import Feature, Flag, Panel, PanelSchema, Segment
from cellwright.params import Monitor, Params, Split
from cellwright.steps.train import train
from cellwright.workspace import Workspace

STEPS = 48  # a day, at 30 minutes
KNOWN, CHANGED = 35, 42  # days: the champion's data end, the layer comes
CHANGE = Change("layer", day=CHANGED, size=1.0, row=0.0, column=0.0, rows=0.5, columns=1.0)


def options(days: int = 56, changes: tuple[Change, ...] = (CHANGE,)) -> CityOptions:
    return CityOptions(days=days, grid=(4, 5), cadence_s=1800, changes=changes)


def city(asked: CityOptions) -> Panel:
    """The city as a panel, outages flagged."""
    days = list(process.days(asked, land.build(asked)))
    down = np.concatenate([day.down for day in days])
    traffic = np.concatenate([day.features["traffic_mbps"] for day in days])
    rows, sites = traffic.shape
    schema = PanelSchema(
        dataset="town",
        sites=tuple(f"s{i:02d}" for i in range(sites)),
        features=(Feature(name="traffic_mbps", unit="Mbit/s", low=0),),
        targets=("traffic_mbps",),
        cadence_s=asked.cadence_s,
        clock="utc",
        start_ms=asked.start_ms,
        rows=rows,
        segments=(Segment(name="all", start=0, stop=rows),),
        grid=asked.grid,
        licence="none",
        attribution="none",
    )
    return Panel.from_arrays(schema, {"traffic_mbps": traffic}, {"traffic_mbps": down * np.uint8(Flag.OUTAGE)})


@pytest.fixture(scope="session")
def params() -> Params:
    return Params(
        dataset="town",
        split=Split(until=KNOWN * STEPS),
        monitor=Monitor(min_sites=4, settle_h=48, cooldown_h=240, batch_h=24),
    )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, params) -> tuple[Workspace, Path]:
    """A workspace with the whole town, and the folder of a champion that looks at no other site. Not to be written to."""
    ws = Workspace(tmp_path_factory.mktemp("town"))
    city(options()).save(ws.panel("town"))
    train(params, ws, "persistence")
    return ws, ws.candidate("persistence")


@pytest.fixture
def town(prepared, tmp_path) -> tuple[Workspace, Path]:
    """A workspace of the test's own with the same panel and champion."""
    whole, champion = prepared
    ws = Workspace(tmp_path)
    ws.panel("town").parent.mkdir(parents=True)
    ws.panel("town").symlink_to(whole.panel("town"))
    return ws, champion
