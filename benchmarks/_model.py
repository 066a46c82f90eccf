"""What benchmarks of the edge serve: a small GRU of one site, exported and packed as the publish step does it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from cellwright.bundle import media, store
from cellwright.bundle.contents import document
from cellwright.bundle.export import export_onnx, parity
from cellwright.bundle.keys import signing_key
from cellwright.bundle.layout import About, pack
from cellwright.bundle.problem import served
from cellwright.data.scaler import fit_scaler
from cellwright.data.windows import Windows
from cellwright.edge.sample import sample_request
from cellwright.forecaster import build
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import check
from cellwright.training.candidates import resolve

NAME, ROWS, SITES = "bench", 600, 25


def schema_of_sites(rows: int) -> PanelSchema:
    """Traffic at 25 sites on a grid, ten minutes a row."""
    return PanelSchema(
        dataset="bench",
        sites=tuple(f"c{i}" for i in range(SITES)),
        features=(Feature(name="traffic", unit="Mbit/s", low=0),),
        targets=("traffic",),
        cadence_s=600,
        clock="utc",
        timezone="Europe/Rome",
        start_ms=1_383_260_400_000,
        rows=rows,
        segments=(Segment(name="all", start=0, stop=rows),),
        grid=(5, 5),
        licence="CC0 1.0",
        attribution="Generated.",
    )


def panel_of_sites() -> Panel:
    """Hourly waves with noise at 25 sites."""
    rng = np.random.default_rng(1)
    hour = np.arange(ROWS)[:, None] / 144 * 2 * np.pi
    return Panel.from_arrays(
        schema_of_sites(ROWS), {"traffic": 100 + 40 * np.sin(hour + np.arange(SITES)) + rng.normal(0, 5, (ROWS, SITES))}
    )


def export(panel: Panel, key: str, folder: Path) -> tuple[str, float, int, float]:
    """(model, seconds, bytes, parity) with one site's history of 6 steps and fresh weights."""
    params = check({"problem": {"inputs": "site"}, "train": {"models": [key]}}, "benchmark")
    candidate = resolve(params, panel.schema, key)
    forecaster = build(candidate, fit_scaler(panel, candidate.problem, "standard", (0, ROWS)))
    started = time.perf_counter()
    path = export_onnx(forecaster, folder / f"{key}.onnx")
    seconds = time.perf_counter() - started
    windows = Windows(panel, candidate.problem)
    sites = np.arange(SITES)
    raw = windows.raw(np.full(SITES, 300), sites)
    problem = served(candidate.problem, panel.schema, windows.neighbours, {"kind": "standard"})
    (folder / f"{key}.json").write_bytes(document(problem.model_dump(mode="json")))
    return key, seconds, path.stat().st_size, parity(forecaster, path, [(raw.history, raw.known, sites)])


def publish(folder: Path, version: str, card: bytes = b"# Benchmark\n", *, model: str = "gru") -> None:
    """Version 1.0.0 becomes the latest."""
    contents: dict[str, bytes | Path] = dict.fromkeys((media.LICENCE, media.LINEAGE, media.KPIS), b"{}")
    contents |= {media.MODEL: folder / f"{model}.onnx", media.PROBLEM: (folder / f"{model}.json").read_bytes(), media.CARD: card}
    about = About(NAME, version, "GRU", "gru", "benchmark", 1, None, None)
    manifest = pack(folder / "packed", contents, about, signing_key(folder / "keys"))
    store.place(folder / "published", folder / "packed", manifest, activate=version == "1.0.0")


def request_of(panel: Panel) -> bytes:
    """A forecast's request of one site, as JSON."""
    candidate = resolve(check({"problem": {"inputs": "site"}}, "b"), panel.schema, "gru")
    return json.dumps(sample_request(served(candidate.problem, panel.schema, None, {}), panel)).encode()
