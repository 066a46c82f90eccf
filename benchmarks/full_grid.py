"""Maps a second of whole-grid inference: every site's 11×11 patch by itself, against each map computed once.

    python benchmarks/full_grid.py                    # everything, and benchmarks/results/<date>-full-grid.md
    python benchmarks/full_grid.py --grid 20          # one grid, prints only

HiSTM with its default sizes, history 6, horizon 3, on generated telemetry of a 20 × 20 and a 100 × 100 grid, on one thread,
gathering and scaling included: `forecast_panel` as scoring calls it, once as it is and once with `maps` off. Both must say
the same; the largest difference is in the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from cellwright.data.scaler import fit_scaler
from cellwright.data.windows import Windows
from cellwright.forecaster import Forecaster, build, forecast_panel
from cellwright.panel import Feature, Panel, PanelSchema, Segment
from cellwright.params import Params
from cellwright.training.candidates import resolve
from models import histm

ROWS, DAY, EDGE = 300, 144, 11


def panel(side: int) -> Panel:
    """Telemetry of a square grid: a daily wave of its own level at each site, and noise."""
    rng = np.random.default_rng(7)
    sites = side * side
    wave = 1.2 + np.sin(2 * np.pi * np.arange(ROWS)[:, None] / DAY - rng.uniform(0, 1, sites))
    traffic = (rng.gamma(2, 50, sites) * wave * rng.gamma(20, 1 / 20, (ROWS, sites))).astype(np.float32)
    schema = PanelSchema(
        dataset=f"grid-{side}",
        sites=tuple(str(i) for i in range(sites)),
        features=(Feature(name="traffic", unit="Mbit/s", low=0),),
        targets=("traffic",),
        cadence_s=600,
        clock="utc",
        start_ms=1_383_260_400_000,
        rows=ROWS,
        segments=(Segment(name="all", start=0, stop=ROWS),),
        grid=(side, side),
        licence="CC0",
        attribution="",
    )
    return Panel.from_arrays(schema, {"traffic": traffic})


def forecaster_of(telemetry: Panel) -> tuple[Forecaster, Windows]:
    """HiSTM with random weights, larger than fresh ones: how good it is does not change how long it takes."""
    params = Params.model_validate(
        {
            "dataset": telemetry.schema.dataset,
            "problem": {"history": 6, "horizon": 3, "inputs": "patch", "patch": EDGE},
            "train": {"models": ["histm"], "scaler": "log"},
        }
    )
    candidate = resolve(params, telemetry.schema, "histm")
    torch.manual_seed(0)
    scaler = fit_scaler(telemetry, candidate.problem, "log", (0, ROWS), None)
    forecaster = build(candidate, scaler).eval()
    with torch.no_grad():
        for parameter in forecaster.network.parameters():  # a fresh head hardly corrects the last value: nothing to compare
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return forecaster, Windows(telemetry, candidate.problem)


def maps_per_s(forecaster: Forecaster, windows: Windows, maps: int) -> tuple[float, float, np.ndarray]:
    """Maps a second by the clock and by CPU time, and the forecasts."""
    origins = np.arange(50, 50 + maps)
    forecast_panel(forecaster, windows, origins[:1])
    begun, cpu = time.perf_counter(), time.process_time()
    y = forecast_panel(forecaster, windows, origins)
    return maps / (time.perf_counter() - begun), maps / (time.process_time() - cpu), y


def measure(side: int, maps: int, few: int) -> str:
    """A row of the table: `few` maps patch by patch, `maps` at once."""
    forecaster, windows = forecaster_of(panel(side))
    whole_s, whole_cpu_s, whole = maps_per_s(forecaster, windows, maps)
    with mock.patch.object(histm.Network, "maps", new=False):
        each_s, each_cpu_s, each = maps_per_s(forecaster, windows, few)
    apart = np.abs(whole[:few] - each).max() / np.abs(each).max()
    return (
        f"| {side} × {side} | {each_s:,.2f} | {whole_s:,.1f} | {each_cpu_s:,.2f} | {whole_cpu_s:,.1f} "
        f"| {whole_cpu_s / each_cpu_s:,.1f}× | {apart:.0e} |"
    )


def page(rows: list[str]) -> str:
    """The dated result."""
    head = (
        "| grid | maps / s, patches | maps / s, whole | maps / CPU-s, patches | maps / CPU-s, whole | gain by CPU time | apart |"
    )
    return "\n".join(
        [
            f"# Whole-grid inference, {datetime.now(UTC):%Y-%m-%d}",
            "",
            f"`python benchmarks/full_grid.py` on {platform.machine()}, 1 thread; Python {platform.python_version()}, torch "
            f"{torch.__version__}. Load average at the end {os.getloadavg()[0]:.1f}: maps per CPU-second are the fairer figure.",
            "HiSTM, 11×11 patches, history 6, horizon 3. Apart: largest difference of the two, as a share of the largest forecast.",
            "",
            head,
            "|" + " --- |" * 7,
            *rows,
            "",
        ]
    )


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, choices=(20, 100))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cases = ((20, 200, 40), (100, 12, 2))
    text = page([measure(*case) for case in cases if asked.grid in (None, case[0])])
    print(text)
    if asked.grid is None:
        (Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-full-grid.md").write_text(text)


if __name__ == "__main__":
    main()
