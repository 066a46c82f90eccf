"""How many bytes a patch between two versions of a model saves, and what making and applying it costs.

    python benchmarks/delta.py                          # trains, measures, writes benchmarks/results/<date>-delta.md (40 min)
    python benchmarks/delta.py --models mlp --budget-s 3 --large-bytes 0

Real versions: on `city`, a GRU and a PatchTST (presets as in params.yaml) are trained on the first 28 days, then, four times, a week
later: warm, from the version before, on the 28 days up to then, as retraining does. Each version is exported to ONNX as published, and
quantised to INT8 as published. Next to these, the last version but trained cold from other weights; and versions that were retrained
gently, with a learning rate of 1e-5 (a hundredth) and a tenth of the time.

The large file is synthetic: 536,870,912 bytes of safetensors in the shapes of a VGG, normal random weights, and then what training
could have done to it: the last two layers moved, all layers moved little or much, all drawn anew; and one with a longer header, so
that every byte lies elsewhere. Moved means: normal noise, its standard deviation a share of the weights'.

One thread. Wall and CPU time; on a machine with other work, CPU-seconds are what compares. Files of more than 16 MB are measured in a
process of their own, whose largest resident set (VmHWM) is given as MB, Python and numpy included. Every rebuilt file was compared with
the target by SHA-256 before it got its name.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DAY, WEEK, WINDOW = 144, 7 * 144, 28 * 144  # rows
VERSIONS = 5
LARGE_BYTES = 536_870_912
SMALL_BYTES = 1 << 24
MODES = ("whole", "prefix", "chunks", "weights")


@dataclass(frozen=True)
class Pair:
    """Two versions of a file."""

    what: str
    base: Path
    target: Path
    modes: tuple[str, ...] = MODES


@dataclass(frozen=True)
class Spent:
    """By one process; `mb` is known where it did nothing else."""

    s: float
    cpu_s: float
    mb: float | None = None


@dataclass(frozen=True)
class Cost:
    """One mode of one pair."""

    pair: Pair
    mode: str
    patch_bytes: int
    make: Spent
    apply: Spent

    @property
    def full_bytes(self) -> int:
        return self.pair.target.stat().st_size


def versions(model: str, folder: Path, given: argparse.Namespace) -> list[Pair]:
    """The versions, trained where they are not there yet, in pairs."""
    if not (folder / f"{model}-cold.onnx").is_file():
        train(model, folder, given)
    pairs = []
    for kind in ("onnx", "int8.onnx"):
        names = [folder / f"{model}-{n + 1}.{kind}" for n in range(VERSIONS)]
        pairs += [Pair(f"{model}, {label(kind)}, {n + 1} to {n + 2}", a, b) for n, (a, b) in enumerate(pairwise(names))]
    last = folder / f"{model}-{VERSIONS}.onnx"
    for how, name in (("gently retrained", "gentle"), ("trained cold", "cold")):
        pairs.append(Pair(f"{model}, fp32, {how}", last, folder / f"{model}-{name}.onnx"))
    return [p for p in pairs if p.base.is_file() and p.target.is_file()]


def train(model: str, folder: Path, given: argparse.Namespace) -> None:
    """Train and export: five versions, one more gently retrained from the last, and one trained cold on the same days."""
    import torch

    from cellwright import versioning
    from cellwright.training import fit as fitting
    from cellwright.workspace import Workspace

    torch.set_num_threads(1)
    versioning.reproduce(Workspace(ROOT), "city")
    kept = None
    for number in range(VERSIONS):
        candidate, panel, spans, _ = task(model, number, given.budget_s, [])
        fitted = fitting.fit(candidate, panel, spans, warm=kept)
        kept = fitted.forecaster
        exported(kept, folder / f"{model}-{number + 1}")
        say(f"{model}: version {number + 1} of {VERSIONS} trained and exported")
    gentle = task(model, VERSIONS - 1, given.budget_s / 10, ["train.learning_rate=0.00001"])
    exported(fitting.fit(*gentle[:3], warm=kept).forecaster, folder / f"{model}-gentle")
    other = task(model, VERSIONS - 1, given.budget_s, ["train.seed=100"])
    exported(fitting.fit(*other[:3]).forecaster, folder / f"{model}-cold")


def label(kind: str) -> str:
    return "INT8" if kind.startswith("int8") else "fp32"


def task(model: str, number: int, budget_s: float, overrides: list[str]) -> tuple[Any, Any, Any, Any]:
    """(candidate, panel, spans, params) of version `number` (from 0): four weeks, a week later each."""
    from cellwright.data.split import spans
    from cellwright.panel import Panel
    from cellwright.params import load
    from cellwright.training.candidates import resolve
    from cellwright.workspace import Workspace

    given = ["dataset=city", f"train.models=[{model}]", f"train.budget_s={budget_s:g}", f"split.since={number * WEEK}"]
    params = load(ROOT / "params.yaml", [*given, f"split.until={number * WEEK + WINDOW}", *overrides])
    panel = Panel.open(Workspace(ROOT).panel("city"))
    return resolve(params, panel.schema, model), panel, spans(params.split, panel.schema), params


def exported(forecaster: Any, stem: Path) -> None:
    """As it is published: fp32, and INT8 where that can be made."""
    from cellwright.bundle.export import export_onnx
    from cellwright.bundle.quantise import quantise

    export_onnx(forecaster, stem.with_name(stem.name + ".onnx"))
    quantise(stem.with_name(stem.name + ".onnx"), stem.with_name(stem.name + ".int8.onnx"))


def large(folder: Path, total: int) -> Iterator[Pair]:
    """Pairs of the synthetic file; each target is gone when the next one is asked for."""
    layers = shapes(total)
    base = written(folder / "large", total, layers, lambda _, w: w)
    tuned = ("classifier.1", "classifier.2")
    every = ("chunks", "weights")
    for what, change, longer, modes in (
        ("last two layers moved by 1e-2", lambda n, w: moved(w, 1e-2) if n in tuned else w, 0, ("whole", *every)),
        ("all layers moved by 1e-4", lambda _, w: moved(w, 1e-4), 0, every),
        ("all layers moved by 1e-2", lambda _, w: moved(w, 1e-2), 0, ("weights",)),
        ("drawn anew", lambda _, w: moved(np.zeros_like(w), 1, len(w)), 0, ("weights",)),
        ("header longer by 1,001 bytes", lambda _, w: w, 1001, ("chunks",)),
    ):
        target = written(folder / "large-next", total + longer, layers, change)
        yield Pair(f"synthetic, {what}", base, target, modes)
        target.unlink()


def shapes(total: int) -> dict[str, int]:
    """Numbers of each layer, in the proportions of a VGG-16, of `total` bytes with the header."""
    shares = {"features.1": 0.02, "features.2": 0.09, "classifier.0": 0.74, "classifier.1": 0.12, "classifier.2": 0.03}
    head = len(header(dict.fromkeys(shares, total // 4)))
    numbers = (total - 8 - head) // 4
    found = {name: int(numbers * share) for name, share in shares.items()}
    found["classifier.2"] += numbers - sum(found.values())
    return found


def header(layers: dict[str, int]) -> bytes:
    at, found = 0, {}
    for name, count in layers.items():
        found[name] = {"dtype": "F32", "shape": [count], "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    return json.dumps(found).encode()


def written(path: Path, size: int, layers: dict[str, int], change: Any) -> Path:
    """A safetensors file of the same random weights, changed; its header is filled with spaces until the file has `size` bytes."""
    with path.open("wb") as out:
        head = header(layers)
        head += b" " * max(0, size - 8 - len(head) - 4 * sum(layers.values()))
        out.write(len(head).to_bytes(8, "little") + head)
        for seed, (name, count) in enumerate(layers.items()):
            rng = np.random.default_rng(seed)
            for start in range(0, count, 1 << 22):
                out.write(change(name, rng.normal(0, 0.02, min(1 << 22, count - start)).astype(np.float32)).tobytes())
    return path


def moved(weights: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """With noise that is that share of the weights; which noise, the weights themselves decide."""
    rng = np.random.default_rng([seed, *weights[:4].view(np.uint32).tolist()])
    return weights + rng.normal(0, share * 0.02, len(weights)).astype(np.float32)


def cost(pair: Pair, mode: str, folder: Path) -> Cost:
    """Make and apply; large files each in a process of its own, for the sake of its memory."""
    patch, out = folder / "patch", folder / "rebuilt"
    run = one if pair.target.stat().st_size > SMALL_BYTES else within
    made = run("make", pair.base, pair.target, patch, mode)
    applied = run("apply", pair.base, patch, out)
    found = Cost(pair, mode, patch.stat().st_size, made, applied)
    out.unlink()
    patch.unlink()
    share = found.patch_bytes / found.full_bytes
    say(f"{pair.what}: {mode} {share:.1%}, made in {made.s:.2f} s, applied in {applied.s:.2f} s ({applied.cpu_s:.2f} CPU-s)")
    return found


def one(*command: object) -> Spent:
    """The same as `within`, in a process of its own."""
    given = [sys.executable, __file__, "--one", *map(str, command)]
    done = subprocess.run(given, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return Spent(**json.loads(done.stdout))


def within(what: str, *arguments: Any) -> Spent:
    """Make or apply a patch here."""
    from cellwright.delta import apply, make
    from cellwright.delta.modes import FAMILY, mode
    from cellwright.families import members

    for name in members(FAMILY):  # loaded before the clock starts
        mode(name)
    started, cpu = time.perf_counter(), time.process_time()
    if what == "make":
        make(*map(Path, arguments[:3]), [arguments[3]])
    else:
        apply(*map(Path, arguments))
    return Spent(time.perf_counter() - started, time.process_time() - cpu)


def peak_mb() -> float:
    """The largest resident set of this process so far."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1000


def page(costs: list[Cost], wall_s: float) -> str:
    """The result as Markdown."""
    import zstandard

    one_min, five_min, _ = os.getloadavg()
    lines = [
        f"# Patches between versions, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/delta.py {' '.join(sys.argv[1:])}`, {os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, numpy {np.__version__}, zstandard {zstandard.__version__} (zstd "
        f"{'.'.join(map(str, zstandard.ZSTD_VERSION))}), {wall_s / 60:.0f} min in all, load average at the end {one_min:.1f} (1 min), "
        f"{five_min:.1f} (5 min). `share` is the patch's bytes as a share of the whole file's.",
        "",
        "| pair | file bytes | mode | patch bytes | share | make s | CPU-s | MB | apply s | CPU-s | MB | rebuilt MB/CPU-s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *map(line, costs),
        "",
    ]
    parts = (__doc__ or "").split("\n\n")
    return "\n".join([*lines, *"\n\n".join(parts[2:]).rstrip().splitlines(), ""])


def line(c: Cost) -> str:
    size = SIZES[c.pair.what]
    times = " | ".join(f"{x.s:.2f} | {x.cpu_s:.2f} | {'' if x.mb is None else f'{x.mb:.0f}'}" for x in (c.make, c.apply))
    rate = size / max(c.apply.cpu_s, 1e-3) / 1e6
    return f"| {c.pair.what} | {size:,} | {c.mode} | {c.patch_bytes:,} | {c.patch_bytes / size:.1%} | {times} | {rate:.0f} |"


SIZES: dict[str, int] = {}  # of the targets, some of which are gone when the page is written


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Measure everything, and write the page."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--models", default="gru,patchtst")
    asked.add_argument("--budget-s", type=float, default=20)
    asked.add_argument(
        "--versions", type=Path, default=None, help="keep the exported versions there; measure those that are there already"
    )
    asked.add_argument("--large-bytes", type=int, default=LARGE_BYTES)
    asked.add_argument("--out", type=Path, default=None, help="default: benchmarks/results/<date>-delta.md")
    asked.add_argument("--one", nargs="+", default=None, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.one:
        spent = within(*given.one)
        print(json.dumps({"s": spent.s, "cpu_s": spent.cpu_s, "mb": peak_mb()}))
        return
    begun = time.perf_counter()
    out = given.out or ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-delta.md"
    costs = []
    with tempfile.TemporaryDirectory() as name:
        for found in measured(Path(name), given):  # the page grows with them: what is measured is not lost
            costs.append(found)
            out.write_text(page(costs, time.perf_counter() - begun))
    say(out.read_text())


def measured(folder: Path, given: argparse.Namespace) -> Iterator[Cost]:
    """Every mode of every pair."""
    for pair in pairs_of(folder, given):
        SIZES[pair.what] = pair.target.stat().st_size
        for mode in pair.modes:
            yield cost(pair, mode, folder)


def pairs_of(folder: Path, given: argparse.Namespace) -> Iterator[Pair]:
    """The real pairs, then the synthetic ones."""
    for model in filter(None, given.models.split(",")):
        yield from versions(model, given.versions or folder, given)
    if given.large_bytes:
        yield from large(folder, given.large_bytes)


if __name__ == "__main__":
    main()
