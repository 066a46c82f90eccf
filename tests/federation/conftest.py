"""A tiny network of four sites, twelve days by the hour, each unlike the others; cut so that each site is an owner of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import Params, check

DAY, ROWS, SITES = 24, 12 * 24, ("north", "east", "south", "west")


def tiny_panel(seed: int = 0, *, rows: int = ROWS, cadence_s: float = 3600, sites: tuple[str, ...] = SITES) -> Panel:
    """Sites of different level and phase; `traffic` is the target, `users` a further feature; three values of "east" are missing."""
    rng = np.random.default_rng(seed)
    position = np.arange(len(sites))
    wave = np.sin(2 * np.pi * np.arange(rows)[:, None] / DAY - 0.7 * position)
    traffic = ((20 + 30 * position) * (2 + wave + rng.normal(0, 0.1, (rows, len(sites))))).clip(0).astype(np.float32)
    users = np.sqrt(traffic)
    if len(sites) > 1:
        traffic[30:33, 1] = np.nan
    schema = PanelSchema(
        dataset="tiny",
        sites=sites,
        features=(Feature(name="traffic", unit="Mbit/s", low=0), Feature(name="users", unit="1")),
        targets=("traffic",),
        cadence_s=cadence_s,
        clock="utc",
        start_ms=1_383_264_000_000,
        rows=rows,
        segments=(Segment(name="all", start=0, stop=rows),),
        grid=(2, 2) if len(sites) == 4 else None,
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema, {"traffic": traffic, "users": users})


def tiny_params(**sections: object) -> Params:
    """Six hours are seen, three forecast by a GRU of eight units; sections given are laid over."""
    base: dict[str, dict[str, object]] = {
        "problem": {"history": 6, "horizon": 3},
        "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
        "train": {"models": ["gru"], "settings": {"gru": {"options": {"hidden": 8}}}, "device": "cpu"},
        "federation": {"steps": 2, "batch": 16, "rounds": 3},
        "energy": {"idle_s": 0},
    }
    merged = {name: {**base.get(name, {}), **over} for name, over in sections.items()}  # type: ignore[dict-item]
    return check({"dataset": "tiny", **base, **merged}, "test")


@pytest.fixture
def make_panel() -> Callable[..., Panel]:
    return tiny_panel


@pytest.fixture
def panel() -> Panel:
    return tiny_panel()


@pytest.fixture
def make_params() -> Callable[..., Params]:
    return tiny_params


@pytest.fixture
def params() -> Params:
    return tiny_params()


@pytest.fixture(scope="session")
def owner_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One panel folder an owner, by the owner's name; do not write into them."""
    from cellwright.federation.owners import cut, groups

    panel = tiny_panel()
    return cut(panel, groups(panel.schema, "site"), tmp_path_factory.mktemp("owners"))
