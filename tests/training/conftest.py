"""A small network of sites with a daily wave, and a workspace that holds it."""

import numpy as np
import pytest

from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import check
from cellwright.workspace import Workspace

ROWS, SITES, DAY = 480, 4, 48  # half-hours


def small_panel(seed: int = 0, rows: int = ROWS) -> Panel:
    rng = np.random.default_rng(seed)
    day = 2 * np.pi * np.arange(rows)[:, None] / DAY
    level, phase = np.array([20, 50, 200, 400]), np.array([0, 0.5, 1, 1.5])
    noise = rng.normal(0, 0.15, (rows, SITES)).cumsum(axis=0) * 0.1 + rng.normal(0, 0.1, (rows, SITES))
    traffic = (level * (2 + np.sin(day - phase) + noise)).clip(0).astype(np.float32)
    flags = np.zeros(traffic.shape, np.uint8)
    traffic[30:33, 1], flags[30:33, 1] = np.nan, 1
    schema = PanelSchema(
        dataset="toy",
        sites=("a", "b", "c", "d"),
        features=(Feature(name="traffic", unit="Mbit/s", low=0), Feature(name="users", unit="1")),
        targets=("traffic",),
        cadence_s=1800,
        clock="utc",
        start_ms=1_383_260_400_000,
        rows=rows,
        segments=(Segment(name="all", start=0, stop=rows),),
        grid=(2, 2),
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema, {"traffic": traffic, "users": np.sqrt(traffic)}, {"traffic": flags})


def small_params(**sections):
    base = {
        "dataset": "toy",
        "problem": {"history": 6, "horizon": 3, "patch": 3},
        "train": {"models": ["mlp"], "budget_s": 60, "max_epochs": 4, "batch": 64, "device": "cpu"},
        "runner": {"kind": "serial", "workers": 2},
        "energy": {"idle_s": 0},
    }
    merged = {name: {**base.get(name, {}), **over} for name, over in sections.items()}
    return check({**base, **merged}, "test")


@pytest.fixture
def panel():
    return small_panel()


@pytest.fixture
def make_params():
    return small_params


@pytest.fixture
def workspace(tmp_path, panel):
    ws = Workspace(tmp_path, "test")
    panel.save(ws.panel("toy"))
    return ws


@pytest.fixture
def make_panel():
    return small_panel
