"""Small panels whose values tell where they come from: row · 100 + site."""

import numpy as np
import pytest

from cellwright.panel import Feature, Panel, PanelSchema, Segment
from models._contract import Problem

NOVEMBER_MS = 1_383_260_400_000  # 2013-11-01 00:00 in Rome, a Friday


def telling(rows: int, sites: int) -> np.ndarray:
    return (np.arange(rows)[:, None] * 100 + np.arange(sites)).astype(np.float32)


@pytest.fixture
def make_panel():
    def make(values, *, flags=None, segments=None, grid=None, clock="utc", targets=None):
        if not isinstance(values, dict):
            values = {"traffic": values}
        rows, sites = next(iter(values.values())).shape
        schema = PanelSchema(
            dataset="toy",
            sites=tuple(f"s{i}" for i in range(sites)),
            features=tuple(Feature(name=name, unit="1") for name in values),
            targets=targets or (next(iter(values)),),
            cadence_s=600,
            clock=clock,
            timezone="Europe/Rome",
            start_ms=NOVEMBER_MS if clock == "utc" else 0,
            rows=rows,
            segments=tuple(Segment(name=f"{a}", start=a, stop=b) for a, b in segments or [(0, rows)]),
            grid=grid,
            licence="CC0",
            attribution="",
        )
        return Panel.from_arrays(schema, values, flags)

    return make


@pytest.fixture
def make_problem():
    def make(**over):
        base = {
            "history": 4,
            "horizon": 2,
            "cadence_s": 600,
            "inputs": "site",
            "nodes": 1,
            "outputs": 1,
            "features": ("traffic",),
            "targets": ("traffic",),
        }
        return Problem(**{**base, **over})

    return make
