"""How long normalising takes and how much memory it needs.

    python benchmarks/normalise.py                    # everything, and benchmarks/results/<date>-normalise.md
    python benchmarks/normalise.py --only long-csv    # one case
    python benchmarks/normalise.py --scale 0.01       # the same in small

Cases: 20 million long rows (2,340 sites × 60 days × 10 min, two features) in one CSV and in one Parquet file, rows shuffled
within a day, 0.5 % lost, 1 in 1,000 repeated; and 10,000 sites × 62 days × 10 min × 5 features, a Parquet file a day. Each is
normalised by the step that users run, in a process of its own, panel written; ingesting (copying) is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from cellwright.params import Params
from cellwright.steps.normalise import normalise
from cellwright.workspace import Workspace

STEPS = 144  # a day at 10 minutes
START_MS = 1_767_571_200_000  # 2026-01-05 00:00 UTC


@dataclass(frozen=True)
class Case:
    """What is generated, and the limits it is held against."""

    name: str
    sites: int
    days: int
    features: int
    suffix: str  # .csv or .parquet
    single: bool  # one file, or one a day
    limit_s: float | None
    limit_gb: float

    def scaled(self, scale: float) -> Case:
        """Fewer sites."""
        return Case(**{**self.__dict__, "sites": max(4, int(self.sites * scale))})


CASES = (
    Case("long-csv", 2_340, 60, 2, ".csv", True, 40, 4),
    Case("long-parquet", 2_340, 60, 2, ".parquet", True, 40, 4),
    Case("city-size", 10_000, 62, 5, ".parquet", False, None, 8),
)


def day(case: Case, number: int, rng: np.random.Generator) -> pl.DataFrame:
    """One day of telemetry in long form, rows in any order."""
    steps = np.repeat(np.arange(STEPS), case.sites)
    sites = np.tile(np.arange(case.sites), STEPS)
    usual = (60 + 40 * np.sin(2 * np.pi * (steps / STEPS - 0.3))) * (1 + sites % 7)
    kept = rng.permutation(len(steps))[: int(len(steps) * 0.995)]
    kept = np.concatenate([kept, kept[: len(kept) // 1000]])
    times = START_MS + (number * STEPS + steps[kept].astype(np.int64)) * 600_000
    values = {f"f{i}": (usual[kept] * rng.gamma(9, 1 / 9, len(kept))).astype(np.float32) for i in range(case.features)}
    names = pl.Series([f"cell-{i:05d}" for i in range(case.sites)])
    stamps = pl.Series(times).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    return pl.DataFrame({"time": stamps, "cell": names.gather(pl.Series(sites[kept])), **values})


def generate(case: Case, folder: Path) -> int:
    """Write the case's files; returns their rows."""
    rng, rows = np.random.default_rng(7), 0
    days = folder / "days"
    days.mkdir(parents=True)
    for number in range(case.days):
        frame = day(case, number, rng)
        frame.write_parquet(days / f"{number:03d}.parquet")
        rows += frame.height
    if case.single:
        whole = pl.scan_parquet(days / "*.parquet")
        whole.sink_csv(folder / "all.csv") if case.suffix == ".csv" else whole.sink_parquet(folder / "all.parquet")
        shutil.rmtree(days)
    else:
        for file in days.iterdir():
            file.rename(folder / file.name)
        days.rmdir()
    return rows


def describe(case: Case, root: Path) -> None:
    """The catalogue of one data set, as a user would write it."""
    features = {f"f{i}": {"unit": "Mbit/s", "low": 0} for i in range(case.features)}
    entry = {"title": case.name, "files": "nowhere/*", "reader": "long", "options": {"time": "time", "site": "cell"}}
    content = {case.name: {**entry, "cadence_s": 600, "features": features, "targets": ["f0"]}}
    (root / "data" / "catalogue.yaml").write_text(yaml.safe_dump({"datasets": content}))


def child(name: str, root: Path) -> None:
    """Normalise and print what it took; runs in a process of its own."""
    begun = time.perf_counter()
    done = normalise(Params(dataset=name), Workspace(root))
    taken = {
        "seconds": time.perf_counter() - begun,
        "cpu_s": time.process_time(),
        "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "repeated": done.duplicates_equal + done.duplicates_conflicting,
        "filled": sum(f.filled for f in done.features.values()),
    }
    print(json.dumps(taken))


def measure(case: Case) -> str:
    """Generate, normalise in a child, clean up; returns a row of the table."""
    root = Path(tempfile.mkdtemp(prefix="cellwright-normalise-"))
    try:
        rows = generate(case, root / "data" / "raw" / case.name)
        describe(case, root)
        command = [sys.executable, __file__, "--child", case.name, "--root", str(root)]
        taken = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        size = sum(f.stat().st_size for f in (root / "data" / "raw" / case.name).iterdir()) / 1e9
        panel = sum(f.stat().st_size for f in (root / "data" / "panels" / case.name).iterdir()) / 1e9
    finally:
        shutil.rmtree(root)
    limit = f"{case.limit_s:g} s, {case.limit_gb:g} GB" if case.limit_s else f"{case.limit_gb:g} GB"
    return (
        f"| {case.name} | {rows:,} | {case.sites:,} | {case.features} | {size:.2f} | {panel:.2f} | {taken['seconds']:.1f} "
        f"| {taken['cpu_s']:.1f} | {taken['gb']:.2f} | {limit} |"
    )


def page(rows: list[str]) -> str:
    """The dated result."""
    head = "| case | rows | sites | features | source GB | panel GB | seconds | CPU-seconds | peak memory GB | limit |"
    versions = f"Python {platform.python_version()}, polars {pl.__version__}, NumPy {np.__version__}"
    lines = [
        f"# Normalising, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/normalise.py` on {platform.machine()}, {pl.thread_pool_size()} threads; {versions}.",
        f"Load average at the end {os.getloadavg()[0]:.1f}: seconds grow with it, CPU-seconds hardly do.",
        "Peak memory is that of the child process, libraries included. The limits are what the project promises.",
        "",
        head,
        "|" + " --- |" * 10,
    ]
    return "\n".join([*lines, *rows, ""])


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[c.name for c in CASES])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return child(asked.child, asked.root)
    rows = [measure(c.scaled(asked.scale)) for c in CASES if asked.only in (None, c.name)]
    text = page(rows)
    print(text)
    if asked.only is None and asked.scale == 1:
        results = Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}-normalise.md"
        results.write_text(text)
    return None


if __name__ == "__main__":
    main()
