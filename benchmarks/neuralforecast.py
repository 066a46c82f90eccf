"""The models shared with neuralforecast, side by side: its own training and ours, the same data, split, steps and seconds.

    python benchmarks/neuralforecast.py                       # all of them, and benchmarks/results/<date>-neuralforecast.md
    python benchmarks/neuralforecast.py --budget-s 5 --models dlinear nhits --page /dev/stdout

`milan-5x5` (made before by `cellwright data pull milan-5x5` or `cellwright run --dataset milan-5x5`), history 6, horizon 3, the
split of params.yaml. Each side trains in a process of its own on one core, both at the same time; what was measured is kept in
the folder --work, so that a run that was cut off goes on with the next model, and a finished one only writes the page. It is
below the project's .cellwright, one for each budget, commit and state of the code, so that nothing stale is taken.

    cellwright       `fit` with the model's defaults and what params.yaml says of this data set
    neuralforecast   3.3.0 in a virtual environment of its own (made below .cellwright): `NeuralForecast.fit`, then
                     `cross_validation` with the fitted model, with its class's default hyper-parameters. It gets what makes
                     it better: the series scaled as ours are (log, then standardised on training rows), the calendar where
                     the class takes one, 8 series a step (steps are quicker than with its default, 32), early stopping with
                     our patience, and the weights of its best validation at the end

The budget is training time: imports, data and forecasts are not in it. Validation between epochs is, on both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import inspect
import json
import logging
import math
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DATASET = "milan-5x5"
VERSION = "3.3.0"
SHARED = {  # ours: (theirs, what keeps their class from failing on six steps of history)
    "patchtst": ("PatchTST", {}),
    "autoformer": ("Autoformer", {}),
    "informer": ("Informer", {}),
    "timesnet": ("TimesNet", {"top_k": 3}),  # its default, 5, takes the mean for a period
    "dlinear": ("DLinear", {}),
    "itransformer": ("iTransformer", {}),
    "nhits": ("NHITS", {}),
    "tide": ("TiDE", {}),
    "tsmixer": ("TSMixer", {}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "tcn": ("TCN", {}),
}
CHECK_EVERY = 50  # steps of theirs between validations
SERIES = 8  # theirs a step: of all windows of so many series 1,024 are drawn; its default, 32, unfolds four times as many for it
BATCHES = 10**9  # steps at most: the budget or the patience ends training


@dataclass(frozen=True)
class Ground:
    """The panel, and what both sides are measured on."""

    folder: Path
    budget_s: float

    @cached_property
    def params(self):
        from cellwright.params import load

        given = [f"dataset={DATASET}", "problem.history=6", "problem.horizon=3", "train.max_epochs=100000", "train.device=cpu"]
        return load(HERE.parent / "params.yaml", [*given, f"train.budget_s={self.budget_s:g}"])

    @cached_property
    def panel(self):
        from cellwright.panel import Panel

        return Panel.open(self.folder)

    @cached_property
    def spans(self):
        from cellwright.data.split import spans

        return spans(self.params.split, self.panel.schema)

    def origins(self, span: str) -> np.ndarray:
        """Rows of the first target of each window."""
        start, stop = getattr(self.spans, span)
        return np.arange(start, stop - self.params.problem.horizon + 1)

    def truth(self, span: str):
        from cellwright.kpis._spans import Truth

        return Truth.of(self.panel, self.panel.schema.targets, self.origins(span), self.params.problem.horizon)


def ours(name: str, ground: Ground) -> tuple[dict, dict[str, np.ndarray]]:
    """Train and forecast with cellwright."""
    from cellwright.data.windows import Windows
    from cellwright.forecaster import forecast_panel
    from cellwright.training.candidates import resolve
    from cellwright.training.fit import fit

    curve: list[tuple[float, float]] = []
    candidate = resolve(ground.params, ground.panel.schema, name)
    done = fit(candidate, ground.panel, ground.spans, on_epoch=lambda r: curve.append((r["elapsed_s"], r["validation_loss"])))
    windows = Windows(ground.panel, candidate.problem)
    forecasts = {s: forecast_panel(done.forecaster, windows, ground.origins(s), 1024) for s in ("validation", "test")}
    about = {
        "title": candidate.title,
        "train_s": done.train_s,
        "ended": done.status,
        "inputs": candidate.problem.inputs,
        "parameters": sum(p.numel() for p in done.forecaster.network.parameters()),
        "curve": curve,
    }
    return about, forecasts


def scaled(ground: Ground) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """log(1 + y), standardised by site on the training rows; where it was measured; the mean and deviation of each site."""
    target = ground.panel.schema.targets[0]
    y, good = np.log1p(np.asarray(ground.panel.values(target), dtype=np.float64)), np.asarray(ground.panel.good(target))
    training = np.where(good, y, np.nan)[slice(*ground.spans.train)]
    mean, deviation = np.nanmean(training, 0), np.nanstd(training, 0)
    return np.nan_to_num((y - mean) / deviation), good, mean, deviation


def keep_data(ground: Ground, target: Path) -> None:
    """All that their side needs, so that its environment holds nothing of ours."""
    from cellwright.data.calendar import calendar

    schema, (y, good, mean, deviation) = ground.panel.schema, scaled(ground)
    spans = [getattr(ground.spans, span) for span in ("train", "validation", "test")]
    train, problem = ground.params.train, ground.params.problem
    numbers = {"history": problem.history, "horizon": problem.horizon, "patience": train.patience, "seed": train.seed}
    known = calendar(ground.panel.times_ms(), schema.timezone, schema.clock)
    np.savez(target, y=y, good=good, mean=mean, deviation=deviation, known=known, spans=np.array(spans), **numbers)


def frame(data: dict[str, np.ndarray]):
    """Their long table, and the names of the calendar's columns in it."""
    import pandas as pd

    rows, sites = data["y"].shape
    names = [f"known{i}" for i in range(data["known"].shape[1])]
    columns = {"unique_id": np.repeat(np.arange(sites), rows), "ds": np.tile(np.arange(rows), sites), "y": data["y"].T.ravel()}
    columns |= {"available_mask": data["good"].T.ravel().astype(float)}
    columns |= {name: np.tile(data["known"][:, i], sites) for i, name in enumerate(names)}
    return pd.DataFrame(columns), names


def theirs(name: str, data: dict[str, np.ndarray], budget_s: float) -> tuple[dict, dict[str, np.ndarray]]:
    """Train and forecast with neuralforecast."""
    import neuralforecast.models
    from neuralforecast import NeuralForecast

    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    wanted, more = SHARED[name]
    kind, seen, (table, known) = getattr(neuralforecast.models, wanted), Watched(), frame(data)
    (_, start), (_, stop), (_, end) = data["spans"].tolist()
    calendar = {"futr_exog_list": known} if kind.EXOGENOUS_FUTR else {}
    model = kind(**their_settings(kind, data, start), **calendar, **more, callbacks=[watcher(budget_s, seen)])
    library = NeuralForecast(models=[model], freq=1)
    library.fit(table[table.ds < stop], val_size=stop - start)
    trained = library.models[0]
    trained.load_state_dict(seen.best or trained.state_dict())
    found = library.cross_validation(table[table.ds < end], n_windows=None, test_size=end - start, step_size=1, use_fitted=True)
    about = {
        "title": wanted,
        "train_s": seen.seconds,
        "ended": "budget" if seen.seconds >= budget_s else "converged",
        "inputs": "all" if kind.MULTIVARIATE else "site",
        "parameters": sum(p.numel() for p in trained.parameters() if p.requires_grad),
        "steps": seen.steps,
    }
    return about, {
        span: rolled(found, wanted, data, limits) for span, limits in (("validation", (start, stop)), ("test", (stop, end)))
    }


def their_settings(kind, data: dict[str, np.ndarray], training_rows: int) -> dict:
    """Size of the problem, our patience in passes over the training windows, and a quiet trainer; all else is their default."""
    sites = data["y"].shape[1]
    default = inspect.signature(kind.__init__).parameters["windows_batch_size"].default
    windows = training_rows * (1 if kind.MULTIVARIATE else sites)
    checks = math.ceil(int(data["patience"]) * windows / default / CHECK_EVERY)
    return {
        "h": int(data["horizon"]),
        "input_size": int(data["history"]),
        **({"n_series": sites} if kind.MULTIVARIATE else {}),
        "max_steps": BATCHES,
        "batch_size": SERIES,
        "val_check_steps": CHECK_EVERY,
        "early_stop_patience_steps": checks,
        "random_seed": int(data["seed"]),
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


@dataclass
class Watched:
    """What the callback saw; it lies outside of it, since the library trains a copy of the model and its callbacks."""

    began: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    lowest: float = math.inf
    best: dict | None = None  # weights of the best validation


def watcher(budget_s: float, seen: Watched):
    """A callback of theirs that keeps the time, ends training when the budget is spent, and remembers the best weights."""
    from pytorch_lightning import Callback

    class Watch(Callback):
        def on_train_start(self, *_: object) -> None:
            seen.began = time.monotonic()

        def on_train_batch_end(self, trainer, *_: object) -> None:
            seen.steps += 1
            if time.monotonic() - seen.began >= budget_s:
                trainer.should_stop = True

        def on_validation_end(self, trainer, module) -> None:
            loss = float(trainer.callback_metrics.get("ptl/val_loss", math.inf))
            if not trainer.sanity_checking and loss < seen.lowest:
                seen.lowest, seen.best = loss, {k: v.clone() for k, v in module.state_dict().items()}

        def on_train_end(self, *_: object) -> None:
            seen.seconds = time.monotonic() - seen.began

    return Watch()


def rolled(found, column: str, data: dict[str, np.ndarray], limits: tuple[int, int]) -> np.ndarray:
    """Their forecasts of a span as ours lie: (windows, horizon, sites, 1), raw units."""
    horizon, sites = int(data["horizon"]), data["y"].shape[1]
    first, last = limits[0] - 1, limits[1] - horizon - 1  # a cutoff is the row before the first target
    kept = found[found.cutoff.between(first, last)].sort_values(["cutoff", "unique_id", "ds"])
    values = kept[column].to_numpy().reshape(last - first + 1, sites, horizon).transpose(0, 2, 1)
    return np.expm1(values * data["deviation"] + data["mean"])[..., None].astype(np.float32)


def start_side(side: str, name: str, given: argparse.Namespace, core: int | None) -> subprocess.Popen | None:
    """Start one side in a process of its own, unless it was measured before."""
    if (given.work / f"{name}-{side}.json").is_file():
        return None
    python = given.python if side == "theirs" else Path(sys.executable)
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [python, "-P", __file__, "--side", side, "--models", name, "--budget-s", given.budget_s]  # -P: it has their name
    command += ["--panel", given.panel, "--work", given.work, *([] if core is None else ["--core", core])]
    with (given.work / f"{name}-{side}.log").open("w") as log:
        paths = {"PYTHONPATH": str(HERE.parent)} if side == "ours" else {}
        return subprocess.Popen([str(part) for part in command], env={**os.environ, **one, **paths}, stdout=log, stderr=log)


def environment() -> Path:
    """The virtual environment of neuralforecast that benchmarks/training.py makes; its Python."""
    found = importlib.util.spec_from_file_location("training_benchmark", HERE / "training.py")
    made = importlib.util.module_from_spec(found)
    found.loader.exec_module(made)
    return made.environment()


def measured(name: str, given: argparse.Namespace) -> None:
    """Both sides of a model, at the same time where there are two cores."""
    cores = sorted(os.sched_getaffinity(0))
    pair = cores[-2:] if len(cores) > 1 else [None, None]
    jobs = {}
    for side, core in zip(("ours", "theirs"), pair, strict=True):
        jobs[side] = start_side(side, name, given, core)
        if core is None and jobs[side]:
            jobs[side].wait()
    for side, job in jobs.items():
        if job and job.wait():
            raise SystemExit(f"{name}, {side} failed:\n{(given.work / f'{name}-{side}.log').read_text()[-3000:]}")


@dataclass(frozen=True)
class Compared:
    """One model on both sides."""

    name: str
    ours: dict
    theirs: dict
    mae: dict[str, dict[str, float]]  # side -> span -> MAE
    interval: object  # test span: ours minus theirs
    overtaken_s: float | None  # when our validation loss was first as low as theirs at the end


def compare(name: str, ground: Ground, work: Path) -> Compared:
    from cellwright.ranking.bootstrap import WindowErrors, block_steps, paired

    about = {side: json.loads((work / f"{name}-{side}.json").read_text()) for side in ("ours", "theirs")}
    errors: dict[str, dict[str, WindowErrors]] = {side: {} for side in about}
    for side in about:
        arrays = np.load(work / f"{name}-{side}.npz")
        for span in ("validation", "test"):
            truth = ground.truth(span)
            errors[side][span] = WindowErrors.of(arrays[span], truth.values, truth.mask)
    rng, steps = np.random.default_rng(7), len(ground.origins("test"))
    block = block_steps(ground.params.score.block_h, ground.panel.schema.cadence_s, steps)
    interval = paired(errors["ours"]["test"], errors["theirs"]["test"], name=name, block=block, samples=1000, rng=rng)
    level = scaled_mae(np.load(work / f"{name}-theirs.npz")["validation"], ground)
    overtaken = next((s for s, loss in about["ours"]["curve"] if loss <= level), None)
    mae = {side: {span: e.mae for span, e in spans.items()} for side, spans in errors.items()}
    return Compared(name, about["ours"], about["theirs"], mae, interval, overtaken)


def scaled_mae(forecast: np.ndarray, ground: Ground) -> float:
    """Their validation error in our scale, to hold against our training curve."""
    y, good, mean, deviation = scaled(ground)
    rows = ground.origins("validation")[:, None] + np.arange(ground.params.problem.horizon)
    error = np.abs((np.log1p(forecast[..., 0].clip(0)) - mean) / deviation - y[rows])
    return float(error[good[rows]].mean())


def page(found: list[Compared], ground: Ground) -> str:
    """The result as Markdown."""
    import platform

    import torch

    today, first = datetime.now(UTC).date(), found[0].interval
    lines = [
        f"# The models shared with neuralforecast, {today}",
        "",
        f"`python benchmarks/neuralforecast.py --budget-s {ground.budget_s:g}` on {platform.machine()}, one core a side; Python "
        f"{platform.python_version()}, torch {torch.__version__}, neuralforecast {VERSION}. Load average at the end "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        f"`{DATASET}`, history 6, horizon 3; {len(ground.origins('test'))} test windows of {len(ground.panel.schema.sites)} sites. "
        f"The difference (ours minus theirs, below 0: ours is better) has the 95 % interval of a paired block bootstrap, "
        f"{first.block_steps} windows a block, {first.samples} resamples. *Time to theirs*: seconds of our training until our "
        "validation loss was as low as theirs at its end.",
        "",
        "| model | ours: inputs, parameters | theirs: parameters | validation MAE, ours | theirs | test MAE, ours | theirs | "
        "difference on test [95 %] | no worse? | trained s, ours | theirs | ratio | time to theirs, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(c) for c in found),
        "",
        *(__doc__ or "").split("\n\n")[2].splitlines(),
        "",
        "```",
        *(__doc__ or "").split("\n\n")[3].splitlines(),
        "```",
        "",
        (__doc__ or "").split("\n\n")[4].strip(),
        "",
    ]
    return "\n".join(lines)


def row(c: Compared) -> str:
    """One line of the table."""
    i, mine, other = c.interval, c.ours, c.theirs
    verdict = "better" if i.high < 0 else "yes" if i.low <= 0 else "**no**"
    caught = "never" if c.overtaken_s is None else f"{c.overtaken_s:.1f}"
    cells = (
        mine["title"],
        f"{mine['inputs']}, {mine['parameters']:,}",
        f"{other['parameters']:,}",
        f"{c.mae['ours']['validation']:.2f}",
        f"{c.mae['theirs']['validation']:.2f}",
        f"{c.mae['ours']['test']:.2f}",
        f"{c.mae['theirs']['test']:.2f}",
        f"{i.difference:+.2f} [{i.low:+.2f}, {i.high:+.2f}]",
        verdict,
        f"{mine['train_s']:.1f} ({mine['ended']})",
        f"{other['train_s']:.1f} ({other['ended']})",
        f"{mine['train_s'] / other['train_s']:.2f}",
        caught,
    )
    return f"| {' | '.join(cells)} |"


def one_side(given: argparse.Namespace, ground: Ground) -> None:
    """In a process of its own: measure, and keep what was found."""
    (name,) = given.models
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    if given.side == "ours":
        about, forecasts = ours(name, ground)
    else:
        about, forecasts = theirs(name, dict(np.load(given.work / "data.npz")), given.budget_s)
    np.savez(given.work / f"{name}-{given.side}.npz", **forecasts)
    (given.work / f"{name}-{given.side}.json").write_text(json.dumps(about))  # last: it says that all is there


def state(given: argparse.Namespace) -> str:
    """The commit, `-dirty` where it was changed since, and a hash of all that is measured: code, parameters, and which panel."""
    root, found = HERE.parent, hashlib.sha256(str(given.panel.resolve()).encode())
    code = [path for package in ("cellwright", "models") for path in sorted((root / package).rglob("*.py"))]
    for path in (*code, root / "params.yaml", Path(__file__).resolve()):
        found.update(f"{path.relative_to(root)}:{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    commit = _git("rev-parse", "--short", "HEAD") or "no-commit"
    dirty = "-dirty" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{commit}{dirty}-{found.hexdigest()[:8]}"


def _git(*arguments: str) -> str:
    """What git says; nothing where this is no checkout."""
    if not (HERE.parent / ".git").exists():
        return ""
    done = subprocess.run(["git", "-C", HERE.parent, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget-s", type=float, default=30)
    parser.add_argument("--models", nargs="+", choices=SHARED, default=list(SHARED))
    parser.add_argument("--panel", type=Path, default=HERE.parent / "data" / "panels" / DATASET)
    parser.add_argument("--work", type=Path, help="folder of what was measured; else one below .cellwright/benchmarks")
    parser.add_argument("--page", type=Path, help="else benchmarks/results/<date>-neuralforecast.md")
    parser.add_argument("--python", type=Path, help="Python that has neuralforecast; else an environment is made for it")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = HERE.parent / ".cellwright" / "benchmarks"
    given.work = given.work or folder / f"neuralforecast-{given.budget_s:g}s-{state(given)}"
    return given


def main() -> None:
    """Measure both sides of each model, and write the page."""
    given = arguments()
    ground = Ground(given.panel, given.budget_s)
    if given.side:
        one_side(given, ground)
        return
    if not given.panel.is_dir():
        raise SystemExit(
            f"there is no panel {given.panel}; make it with `cellwright data pull {DATASET}`, or name one with --panel"
        )
    given.work.mkdir(parents=True, exist_ok=True)
    given.python = given.python or environment()
    keep_data(ground, given.work / "data.npz")
    found = []
    for name in given.models:
        measured(name, given)
        found.append(compare(name, ground, given.work))
        print(row(found[-1]), flush=True)
    target = given.page or HERE / "results" / f"{datetime.now(UTC).date()}-neuralforecast.md"
    target.write_text(page(found, ground))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
