"""Real runs: a small panel, trained, scored and ranked by the real steps; and made-up ones for what needs no forecaster."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import Params
from cellwright.params import check as checked
from cellwright.steps.rank import rank
from cellwright.steps.report import report
from cellwright.steps.score import score
from cellwright.steps.train import train
from cellwright.workspace import Workspace

ROWS, SITES, A_DAY = 480, 4, 24


def panel() -> Panel:
    """A day's rhythm with noise that lasts: the last value is a poor forecast, ridge a good one."""
    rng, t = np.random.default_rng(5), np.arange(ROWS)
    noise = np.zeros((ROWS, SITES))
    for row in range(1, ROWS):
        noise[row] = 0.5 * noise[row - 1] + rng.normal(0, 3, SITES)
    values = 60 + 40 * np.sin(2 * np.pi * t / A_DAY)[:, None] + noise
    schema = PanelSchema(
        dataset="tiny",
        sites=tuple(f"s{i}" for i in range(SITES)),
        features=(Feature(name="traffic", unit="Mbit/s", low=0),),
        targets=("traffic",),
        cadence_s=3600,
        clock="utc",
        start_ms=1_700_000_000_000 // 3_600_000 * 3_600_000,
        rows=ROWS,
        segments=(Segment(name="all", start=0, stop=ROWS),),
        grid=(2, 2),
        licence="CC0 1.0",
        attribution="made for a test",
    )
    return Panel.from_arrays(schema, {"traffic": values.clip(0).astype(np.float32)})


def params(*models: str, **sections: object) -> Params:
    """Parameters of a run of these candidates, small enough for a test."""
    return checked(
        {
            "dataset": "tiny",
            "problem": {"history": 4, "horizon": 2, "patch": 3},
            "train": {"models": list(models), "max_epochs": 2, "batch": 64, "device": "cpu"},
            "runner": {"kind": "serial"},
            "score": {"latency_repeats": 5, "bootstrap": 200, "energy_forecasts": 20, "replay_s": 0.1},
            "energy": {"idle_s": 0},
            **sections,
        },
        "test",
    )


def trained_and_scored(ws: Workspace, *models: str) -> None:
    """Train and score for real."""
    panel().save(ws.panel("tiny"))
    for key in models:
        train(params(*models), ws, key)
    score(params(*models), ws)


def ranked(ws: Workspace, run: str, *models: str) -> None:
    """Another run of some of the candidates: ranked and reported for real."""
    own = replace(ws, run=run)
    shutil.copytree(ws.run_folder, own.run_folder)
    rank(params(*models), own)
    report(params(*models), own)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two finished runs, `weak` (persistence alone) and `strong` (the MLP wins). Copied, never written to."""
    ws = Workspace(tmp_path_factory.mktemp("project"), "all")
    trained_and_scored(ws, "persistence", "ridge", "mlp")
    ranked(ws, "weak", "persistence")
    ranked(ws, "strong", "ridge", "mlp")
    shutil.rmtree(ws.run_folder)
    return ws.root


@pytest.fixture
def project(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, with a store of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return shutil.copytree(made_once, tmp_path / "project")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables made, to copy: making them takes seconds."""
    from cellwright.registry.store import writing

    ws = Workspace(tmp_path_factory.mktemp("store"))
    with writing(ws) as client:
        client.search_experiments()
    return ws.state / "mlflow.db"


@pytest.fixture
def store(project: Path, empty_store: Path) -> Path:
    """The project's store, empty."""
    state = project / ".cellwright"
    state.mkdir()
    return Path(shutil.copy(empty_store, state / "mlflow.db"))


@pytest.fixture
def make_params():
    """`params`, for tests."""
    return params
