"""Which tricks make training on a CPU faster without another result: where the time of a step goes, and what each trick changes.

    python benchmarks/training_tricks.py                                          # both data sets, about fifteen minutes on one core
    python benchmarks/training_tricks.py --datasets milan-5x5 --models lstm --seconds 3

Three tables a data set and network, all of CPU-seconds of one thread, since wall time suffers from what else a machine does:

    where       a step of the loop as it is: gathering windows, scaling, forward, backward, clipping, optimiser; and what Lightning,
                the budget and the records add to it
    tricks      the same steps with one thing changed, arms taking turns; the training loss after the last of the first steps tells
                whether the result is the same. torch.compile's first call is given apart
    batch       the validation MAE, in raw units, that the same CPU-seconds buy with larger batches, whose rate grows with the
                square root of the batch or not at all, and with bf16
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cellwright.data.split import spans
from cellwright.data.windows import Windows
from cellwright.panel import Panel
from cellwright.params import load
from cellwright.training import fit as fitting
from cellwright.training.batches import Drawn, Fixed, Pool, scaled
from cellwright.training.candidates import Candidate, resolve
from cellwright.training.loop import Loop
from cellwright.training.losses import forecast_loss
from cellwright.training.rung import Compared
from cellwright.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 3  # steps
CHECKED = 20  # steps after which losses are compared
PARTS = ("gather", "scale", "forward", "backward", "clip", "optimiser")


@dataclass
class Bench:
    """A candidate, its data, and a plain loop over them."""

    candidate: Candidate
    panel: Panel
    spans: Any
    training: Pool = field(init=False)
    validation: Pool = field(init=False)

    def __post_init__(self) -> None:
        windows = Windows(self.panel, self.candidate.problem)
        self.training = Pool(windows, windows.origins(*self.spans.train, whole_lags=True))
        self.validation = Pool(windows, windows.origins(*self.spans.validation))

    def forecaster(self) -> Any:
        built = fitting._start(self.candidate, self.panel, self.spans, None)
        fitting.prepare(built, self.training)
        return built

    def batches(self, batch: int) -> Iterator[Any]:
        for epoch in itertools.count():
            yield from Drawn(self.training, batch=batch, windows_per_epoch=None, seed=7, epoch=lambda at=epoch: at)

    def loss(self, forecaster: Any, network: Any, loaded: Any) -> torch.Tensor:
        ready = scaled(forecaster, loaded)
        forecast = network(ready.x, ready.known)
        total, count = forecast_loss(self.candidate.settings.loss, self.candidate.problem, forecast, ready)
        return total / count.clamp(min=1)


def bench(dataset: str, model: str, overrides: list[str]) -> Bench:
    """From the project's own data stages and parameters."""
    params = load(ROOT / "params.yaml", [f"dataset={dataset}", f"train.models=[{model}]", *overrides])
    panel = Panel.open(Workspace(ROOT).panel(dataset))
    return Bench(resolve(params, panel.schema, model), panel, spans(params.split, panel.schema))


def where(given: Bench, seconds: float) -> tuple[dict[str, float], float]:
    """(CPU-ms a step of each part, CPU-ms a step of the whole loop with Lightning, validation left out)."""
    forecaster, settings = given.forecaster(), given.candidate.settings
    forecaster.train()
    parameters = list(forecaster.network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, fused=True)
    spent: dict[str, list[float]] = {part: [] for part in PARTS}
    batches, began = given.batches(settings.batch), time.process_time()
    while time.process_time() - began < seconds or len(spent["gather"]) <= WARM_UP:
        marks = [time.process_time()]
        loaded = next(batches)
        marks.append(time.process_time())
        ready = scaled(forecaster, loaded)
        marks.append(time.process_time())
        total, count = forecast_loss(settings.loss, given.candidate.problem, forecaster.network(ready.x, ready.known), ready)
        marks.append(time.process_time())
        optimizer.zero_grad()
        (total / count).backward()
        marks.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip or 1.0)
        marks.append(time.process_time())
        optimizer.step()
        marks.append(time.process_time())
        for part, a, b in zip(PARTS, marks, marks[1:], strict=False):
            spent[part].append((b - a) * 1e3)
    return {part: statistics.median(times[WARM_UP:]) for part, times in spent.items()}, lightning_ms(given, seconds)


def lightning_ms(given: Bench, seconds: float) -> float:
    """CPU-ms a step of `fit` as users run it: the median of the time from one step's end to the next one's."""
    marks: list[float] = []
    end_of_step = Loop.on_train_batch_end

    def timed(self: Loop, *arguments: Any) -> None:
        end_of_step(self, *arguments)
        marks.append(time.process_time())
        if len(marks) > WARM_UP + 5 and marks[-1] - marks[0] > seconds:
            self.trainer.should_stop = True

    changed = replace(
        given.candidate, settings=replace(given.candidate.settings, budget_s=3600, max_epochs=1, validation_windows=64)
    )
    Loop.on_train_batch_end = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            fitting.fit(changed, given.panel, given.spans, folder=Path(folder))
    finally:
        Loop.on_train_batch_end = end_of_step  # type: ignore[method-assign]
    return statistics.median(b - a for a, b in zip(marks[WARM_UP:], marks[WARM_UP + 1 :], strict=False)) * 1e3


@dataclass
class Arm:
    """One way to take the same steps."""

    name: str
    optimizer: Callable[[list[torch.nn.Parameter], float], torch.optim.Optimizer] = lambda p, lr: torch.optim.AdamW(
        p, lr=lr, weight_decay=0.0, fused=True
    )
    compiled: bool = False
    channels_last: bool = False
    autocast: bool = False
    denormals: bool = True
    first_s: float = 0.0  # CPU-seconds of the first step, with what is compiled
    step_ms: list[float] = field(default_factory=list)
    loss: float = float("nan")
    failed: str = ""

    def start(self, given: Bench) -> None:
        self.given, self.forecaster = given, given.forecaster()
        self.forecaster.train()
        if self.channels_last:
            for module in self.forecaster.network.modules():
                if isinstance(module, torch.nn.Conv2d):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                elif isinstance(module, torch.nn.Conv3d):
                    module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.network = torch.compile(self.forecaster.network) if self.compiled else self.forecaster.network
        self.parameters = list(self.forecaster.network.parameters())
        self.steps = self.optimizer(self.parameters, given.candidate.settings.learning_rate)
        self.batches, self.taken = given.batches(given.candidate.settings.batch), 0
        torch.manual_seed(7)
        began = time.process_time()
        self.step()
        self.first_s = time.process_time() - began

    def step(self) -> None:
        loaded = next(self.batches)
        torch.set_flush_denormal(not self.denormals)
        torch.manual_seed(self.taken)
        began = time.process_time()
        with mixed("bf16" if self.autocast else "32"):
            loss = self.given.loss(self.forecaster, self.network, loaded)
        self.steps.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.given.candidate.settings.gradient_clip or 1.0)
        self.steps.step()
        self.step_ms.append((time.process_time() - began) * 1e3)
        self.taken += 1
        if self.taken == CHECKED:
            self.loss = float(loss.detach())


def adamw(**kind: bool) -> Callable[[list[torch.nn.Parameter], float], torch.optim.Optimizer]:
    return lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.0, **kind)


def arms(network: torch.nn.Module) -> list[Arm]:
    """The loop as it is, first, and each trick alone."""
    found = [
        Arm("as it is: fused AdamW, float32"),
        Arm("AdamW, foreach", adamw(foreach=True)),
        Arm("AdamW, a loop over tensors", adamw(foreach=False, fused=False)),
        Arm("torch.compile", compiled=True),
        Arm("bf16 autocast", autocast=True),
        Arm("denormals to zero", denormals=False),
    ]
    if any(isinstance(m, torch.nn.Conv2d | torch.nn.Conv3d) for m in network.modules()):
        found += [Arm("channels last", channels_last=True), Arm("channels last, bf16", channels_last=True, autocast=True)]
    return found


def tricks(given: Bench, seconds: float) -> list[Arm]:
    """Every arm takes its steps in turn with the others, so that a busy moment hits all of them."""
    found = arms(given.forecaster().network)
    for arm in found:
        try:
            arm.start(given)
        except Exception as error:  # whatever a compiler or a network throws is a result here
            arm.failed = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    running = [arm for arm in found if not arm.failed]
    began = time.process_time()
    while time.process_time() - began < seconds * len(running) or running[0].taken <= CHECKED:
        for arm in running:
            arm.step()
    torch.set_flush_denormal(False)
    return found


def mixed(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def bought(given: Bench, batch: int, rate: float, precision: str, seconds: float) -> float:
    """Validation MAE, forecast in float32, after that many CPU-seconds of steps."""
    forecaster = given.forecaster()
    forecaster.train()
    parameters = list(forecaster.network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
    torch.manual_seed(7)
    batches, began = given.batches(batch), time.process_time()
    while time.process_time() - began < seconds:
        with mixed(precision):
            loss = given.loss(forecaster, forecaster.network, next(batches))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, given.candidate.settings.gradient_clip or 1.0)
        optimizer.step()
    return Compared(given.validation, 20_000, 1024).mae(forecaster)


def validation_ratio(given: Bench) -> float:
    """CPU time of a validation pass in inference mode over that without gradients, as it is: median of five turns."""
    forecaster = given.forecaster().eval()
    held = Fixed(given.validation, batch=4 * given.candidate.settings.batch, limit=8_000)
    ratios = []
    for _ in range(5):
        times = []
        for mode in (torch.inference_mode, torch.no_grad):
            began = time.process_time()
            with mode():
                for loaded in held:
                    given.loss(forecaster, forecaster.network, loaded)
            times.append(time.process_time() - began)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def section(dataset: str, model: str, given: Bench, seconds: float) -> list[str]:
    """The three tables as Markdown."""
    settings, problem = given.candidate.settings, given.candidate.problem
    parts, lightning = where(given, seconds)
    whole = sum(parts.values())
    lines = [
        f"## `{dataset}`, {given.candidate.title}: inputs {problem.inputs}, {settings.batch} windows a step",
        "",
        "| part of a step | CPU-ms | share |",
        "|-|-|-|",
        *(f"| {part} | {ms:.2f} | {ms / whole:.0%} |" for part, ms in parts.items()),
        f"| all of them | {whole:.2f} | |",
        f"| the loop as users run it, Lightning and all | {lightning:.2f} | {lightning / whole - 1:+.0%} |",
        "",
        "| trick | CPU-ms a step | faster by | loss after step 20 | first step, CPU-s |",
        "|-|-|-|-|-|",
    ]
    found = tricks(given, seconds)
    base = statistics.median(found[0].step_ms[WARM_UP:])
    for arm in found:
        if arm.failed:
            lines.append(f"| {arm.name} | {arm.failed} | | | |")
            continue
        ms = statistics.median(arm.step_ms[WARM_UP:])
        lines.append(f"| {arm.name} | {ms:.2f} | {base / ms:.2f}× | {arm.loss:.6f} | {arm.first_s:.1f} |")
    lines += [
        "",
        f"Validation in inference mode takes {validation_ratio(given):.2f} of the CPU time of the pass without gradients.",
        "",
    ]
    lines += [f"| batch | rate | precision | validation MAE after {seconds * 2:g} CPU-s |", "|-|-|-|-|"]
    for factor, rate, precision in (
        (1, 1.0, "32"),
        (1, 1.0, "bf16"),
        (2, 1.0, "32"),
        (2, 2**0.5, "32"),
        (4, 1.0, "32"),
        (4, 2.0, "32"),
    ):
        mae = bought(given, settings.batch * factor, settings.learning_rate * rate, precision, seconds * 2)
        lines.append(f"| {settings.batch * factor} | × {rate:.2g} | {precision} | {mae:.4g} |")
    return [*lines, ""]


def cpu() -> str:
    """The instructions for bf16 that this CPU has."""
    listed = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout.split()
    return ", ".join(name for name in ("avx512_bf16", "amx_bf16") if name in listed) or "no bf16 instructions"


def main() -> None:
    """Measure, print, and write the page."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--datasets", default="milan-5x5,city")
    asked.add_argument("--models", default="mlp,lstm,tcn,stn")
    asked.add_argument("--seconds", type=float, default=4, help="CPU-seconds an arm")
    asked.add_argument("--set", action="append", default=[], help="section.key=value of params.yaml")
    asked.add_argument("--out", type=Path, default=None, help="default: benchmarks/results/<date>-training-tricks.md")
    given = asked.parse_args()
    torch.set_num_threads(1)
    from cellwright import versioning

    body: list[str] = []
    for dataset in given.datasets.split(","):
        versioning.reproduce(Workspace(ROOT), dataset)
        for model in given.models.split(","):
            body += section(dataset, model, bench(dataset, model, given.set), given.seconds)
            print("\n".join(body[-40:]), flush=True)
    head = [
        f"# Tricks for faster training, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python benchmarks/training_tricks.py {' '.join(sys.argv[1:])}` on {platform.machine()} ({cpu()}), one thread, torch "
        f"{torch.__version__}, load average at the end {os.getloadavg()[0]:.1f}.",
        "",
        *(__doc__ or "").split("\n\n")[2:3],
        "",
        "```",
        *(__doc__ or "").split("\n\n")[3].rstrip().splitlines(),
        "```",
        "",
    ]
    page = given.out or ROOT / "benchmarks" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-training-tricks.md"
    page.write_text("\n".join([*head, *body]))


if __name__ == "__main__":
    main()
