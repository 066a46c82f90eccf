"""A small project with a catalogue of one's own, and telemetry to put into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from cellwright.panel import Panel
from cellwright.params import Params, check
from cellwright.results import Normalised
from cellwright.steps.ingest import ingest
from cellwright.steps.normalise import normalise
from cellwright.workspace import Workspace

START = np.datetime64("2026-01-05T00:00", "ms")


@dataclass(frozen=True)
class Project:
    """A workspace with one data set, `own`."""

    ws: Workspace
    entry: dict[str, Any]

    def params(self, **sections: Any) -> Params:
        return check({"dataset": "own", **sections}, "test")

    def normalised(self, **rules: Any) -> tuple[Panel, Normalised]:
        """Ingest and normalise; the panel as it lies on disk."""
        params = self.params(normalise=rules)
        ingest(params, self.ws)
        report = normalise(params, self.ws)
        return Panel.open(self.ws.panel("own")), report

    def write(self, frame: pl.DataFrame, name: str = "a.csv") -> Path:
        path = self.ws.root / "in" / name
        frame.write_parquet(path) if name.endswith(".parquet") else frame.write_csv(path)
        return path


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    """A project of `own`: long telemetry in `in/`, ten minutes, one feature; keywords change its entry."""

    def make(**changed: Any) -> Project:
        entry: dict[str, Any] = {
            "title": "Own",
            "files": "in",
            "reader": "long",
            "options": {"time": "time", "site": "cell"},
            "cadence_s": 600,
            "features": {"mbps": {"unit": "Mbit/s", "low": 0}},
            "targets": ["mbps"],
            **changed,
        }
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "data" / "catalogue.yaml").write_text(yaml.safe_dump({"datasets": {"own": entry}}))
        return Project(Workspace(tmp_path), entry)

    return make


def telemetry(values: np.ndarray, *, cadence_s: int = 600, start: np.datetime64 = START) -> pl.DataFrame:
    """(rows, sites) values as a long table: time, cell, mbps; NaN are rows that never came."""
    rows, sites = values.shape
    times = start + np.arange(rows) * np.timedelta64(cadence_s * 1000, "ms")
    frame = pl.DataFrame({
        "time": np.repeat(times, sites),
        "cell": [f"c{i}" for i in range(sites)] * rows,
        "mbps": values.reshape(-1).astype(np.float32),
    })  # fmt: skip
    return frame.filter(pl.col("mbps").is_not_nan())


@pytest.fixture(name="telemetry")
def _telemetry() -> Callable[..., pl.DataFrame]:
    return telemetry
