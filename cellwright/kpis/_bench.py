"""What all candidates of a run are measured against, and the measuring of one of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellwright.conformal import bounds
from cellwright.data.windows import Windows
from cellwright.errors import BundleError, TrainingError
from cellwright.kpis._contract import Costs, Forecasts, cost_kpis, forecast_kpis, names
from cellwright.kpis._spans import SPANS, Scale, Truth, calibrated, evidence, mean_error_by, save_arrays
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.results import Calibration, DataVersion, EnergyReading, Intervals, Scored, Trained
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.data.split import Spans
    from cellwright.forecaster import Forecaster
    from cellwright.kpis._running import Running
    from models._contract import Problem

OF_TRAINING = ("train_energy_j", "train_co2_g", "cost_train")
OF_FORECASTING = ("energy_per_1000_j", "cost_per_1000_forecasts")
_AT_ONCE = 1024  # windows of one site a call: what a network computes of them stays in a core's cache


@dataclass(frozen=True)
class Accuracy:
    """Errors of a candidate on both spans."""

    spans: dict[str, dict[str, float | None]]  # span -> KPI -> value
    mae_by_step: list[float]  # test span
    mae_by_site: list[float | None]
    intervals: Intervals  # calibrated on the validation span
    calibration: dict[str, Calibration | None]  # span -> how far its quantiles can be relied on


@dataclass(frozen=True)
class Entry:
    """A trained candidate that is to be scored."""

    trained: Trained
    forecaster: Forecaster
    digest: str  # of what is scored and how


class Bench:
    """Panel, spans and truth of a run, against which its candidates are measured one by one."""

    def __init__(self, params: Params, ws: Workspace) -> None:
        from cellwright.data.split import spans
        from cellwright.versioning import data_version

        self.params, self.ws = params, ws
        self.panel = Panel.open(ws.panel(params.dataset))
        self.version: DataVersion = data_version(ws, params.dataset)
        self.spans: Spans = spans(params.split, self.panel.schema)
        self._ground: tuple[dict[str, Truth], Scale] | None = None

    def entry(self, key: str) -> Entry | Scored:
        """What is to be scored, or the score of it that there is already.

        Raises:
            TrainingError: training failed, or its forecaster is missing.
        """
        from cellwright.forecaster import Forecaster

        folder = self.ws.candidate(key)
        trained = Trained.read(folder / "candidate.json")
        if trained.status == "failed":
            raise TrainingError(trained.reason)
        digest = self._digest(folder)
        return self._kept(key, digest) or Entry(trained, Forecaster.load(folder), digest)

    def forecast(self, entry: Entry) -> Accuracy:
        """Forecast both spans with every core (nothing is timed here), keep the arrays, and compute the errors.

        Raises:
            TrainingError: forecasts that are no numbers, or nothing that was measured to hold them against.
        """
        from cellwright.forecaster import point_index

        problem = entry.forecaster.problem
        truth, scale = self.ground(problem)
        answers = {span: self._answers(entry, span, true) for span, true in truth.items()}
        quantiles, conformal = calibrated(problem.quantiles, answers, truth, scale, self._limits(problem.targets))
        grid, point = self.panel.schema.grid, point_index(problem)
        found = {span: evidence(answers[span][..., point], truth[span], scale, grid, quantiles[span]) for span in SPANS}
        save_arrays(self.ws.score(entry.trained.key, ".npz"), {f"{span}_forecast": f.forecast for span, f in found.items()})
        return Accuracy(
            spans={span: forecast_kpis(f) for span, f in found.items()},
            mae_by_step=self._by_step(found["test"]),
            mae_by_site=mean_error_by(2, found["test"]),
            intervals=conformal.stored(),
            calibration={span: None if f.reliability is None else f.reliability.stored() for span, f in found.items()},
        )

    def _answers(self, entry: Entry, span: str, true: Truth) -> np.ndarray:
        """All that the network says of a span: (windows, horizon, sites, targets, quantiles)."""
        from cellwright.forecaster import answer_panel

        windows = Windows(self.panel, entry.forecaster.problem)
        found = in_parallel(lambda some: answer_panel(entry.forecaster, windows, some, _AT_ONCE), true.origins)
        if wrong := int((~np.isfinite(found) & true.mask[..., None]).any(axis=-1).sum()):
            raise TrainingError(f"{wrong} of its forecasts of the {span} span are no finite numbers; train it again")
        return found

    def _limits(self, targets: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Physical bounds of the targets."""
        features = {f.name: f for f in self.panel.schema.features}
        return bounds([features[t].low for t in targets], [features[t].high for t in targets])

    def measure(self, entry: Entry, accuracy: Accuracy, onnx: Path | BundleError | None) -> Scored:
        """Time, weigh and meter a candidate whose errors are known, and write its score.

        `onnx`: its exported file, why there is none, or None where only its errors are asked for (`score.costs`).
        """
        trained, running = entry.trained, None if onnx is None else self._running(entry, onnx)
        return Scored(
            key=trained.key,
            title=trained.title,
            status=trained.status,
            reason=trained.reason,
            validation=accuracy.spans["validation"],
            test=accuracy.spans["test"],
            cost=cost_kpis(costs_of(trained, running, self.params)),
            sources=self._sources(entry, running),
            mae_by_step=accuracy.mae_by_step,
            mae_by_site=accuracy.mae_by_site,
            validation_pairs=[],
            test_pairs=[],
            digest=entry.digest,
            stride=self.params.score.stride,
            intervals=accuracy.intervals,
            validation_calibration=accuracy.calibration["validation"],
            test_calibration=accuracy.calibration["test"],
        ).save(self.ws.score(trained.key))

    def _running(self, entry: Entry, onnx: Path | BundleError) -> Running:
        from cellwright.kpis._running import Samples, observe

        truth, _ = self.ground(entry.forecaster.problem)
        windows = Windows(self.panel, entry.forecaster.problem)
        samples = Samples(windows, truth["validation"].origins, self.params.score.batch)
        return observe(entry.forecaster, samples, self.params, onnx)

    def ground(self, problem: Problem) -> tuple[dict[str, Truth], Scale]:
        """Truth of both spans and the sites' yardsticks, gathered once: all candidates of a run forecast the same targets."""
        if self._ground is None:
            windows = Windows(self.panel, problem)
            every = self.params.score.stride
            origins = {span: windows.origins(*getattr(self.spans, span))[::every] for span in SPANS}
            truth = {span: Truth.of(self.panel, problem.targets, o, problem.horizon) for span, o in origins.items()}
            self._ground = truth, Scale.of(self.panel, problem.targets, *self.spans.train, problem.season)
            self._save_truth(truth, problem.targets)
        return self._ground

    def _digest(self, folder: Path) -> str:
        from cellwright.forecaster import FILE

        p = self.params
        how = [repr(part) for part in (p.score, p.energy, p.prices, p.runner.threads_per_worker, self.spans, names())]
        total = hashlib.sha256("\n".join([self.version.hash, *how]).encode())
        for path in (folder / FILE, folder / "candidate.json", *_code()):
            total.update(path.read_bytes())
        return total.hexdigest()

    def _kept(self, key: str, digest: str) -> Scored | None:
        files = (self.ws.score(key), self.ws.score(key, ".npz"), self.ws.scores / "truth.npz")
        if not all(path.is_file() for path in files):
            return None
        scored = Scored.read(files[0])
        return scored if scored.digest == digest else None

    def _save_truth(self, truth: dict[str, Truth], targets: tuple[str, ...]) -> None:
        arrays: dict[str, np.ndarray] = {}
        for span, true in truth.items():
            arrays |= {f"{span}_truth": true.values, f"{span}_mask": true.mask, f"{span}_origins": true.origins}
        arrays |= {
            "sites": np.array(self.panel.schema.sites),
            "targets": np.array(targets),
            "times_ms": self.panel.times_ms(),
        }
        save_arrays(self.ws.scores / "truth.npz", arrays)

    @staticmethod
    def _by_step(test: Forecasts) -> list[float]:
        by_step = [error for error in mean_error_by(1, test) if error is not None]
        if len(by_step) < test.truth.shape[1]:
            raise TrainingError("the test span has a step without any measured target; choose another split or other targets")
        return by_step

    def _sources(self, entry: Entry, running: Running | None) -> dict[str, str]:
        """Where a KPI is from, if it is not measured."""
        found: dict[str, str] = {}
        if (training := entry.trained.energy) is not None:
            found |= _marked(OF_TRAINING, training, "apportioned by CPU-seconds" if training.shared else "")
        if running is not None and running.energy is not None:
            found |= _marked(OF_FORECASTING, running.energy, "")
        if running is not None and running.without_onnx:
            found |= {"bundle_bytes": f"absent: {running.without_onnx}"}
        if not self.ground(entry.forecaster.problem)[1].seasonal:
            found["mase"] = "scaled by the one-step naive forecast"
        return found


def _code() -> list[Path]:
    """What computes the KPIs and the intervals."""
    here = Path(__file__).parent
    return [*sorted(here.glob("*.py")), here.parent / "conformal.py"]


def in_parallel(forecast: Callable[[np.ndarray], np.ndarray], origins: np.ndarray) -> np.ndarray:
    """Forecasts of all `origins`, in as many threads as there are cores: torch computes outside of Python's lock."""
    threads = os.cpu_count() or 1
    parts = np.array_split(origins, min(len(origins), 4 * threads))
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(forecast, parts)))


def costs_of(trained: Trained, running: Running | None, params: Params) -> Costs:
    """The evidence of the cost KPIs; `running` is None where only training was metered."""
    energy = trained.energy
    on_gpu = energy is not None and (energy.gpu.energy_j or 0.0) > 0
    training = Costs(
        parameters=trained.parameters,
        train_s=trained.train_s,
        train_cpu_s=trained.cpu_s,
        train_gpu_s=trained.train_s if on_gpu else None,
        train_energy=energy,
        prices=params.prices,
    )
    if running is None:
        return training
    return replace(
        training,
        torch=running.torch,
        onnx=running.onnx,
        macs=running.macs,
        bundle_bytes=running.bundle_bytes,
        peak_memory_bytes=running.peak_memory_bytes,
        forecast_energy=running.energy,
        forecasts_metered=running.forecasts_metered,
    )


def _marked(kpis: tuple[str, ...], reading: EnergyReading, more: str) -> dict[str, str]:
    """The source of KPIs that rest on a reading, where it is not measured."""
    if reading.source in (None, "measured"):
        return {}
    return {kpi: f"{reading.source}: {more}" if more else str(reading.source) for kpi in kpis}
