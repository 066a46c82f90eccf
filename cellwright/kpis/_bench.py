"""What all candidates of a run are measured against, and the measuring of one of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.errors import CellwrightError, TrainingError
from cellwright.kpis._contract import Costs, Forecasts, cost_kpis, forecast_kpis
from cellwright.kpis._spans import SPANS, Scale, Truth, evidence, mean_error_by, save_arrays
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.results import DataVersion, EnergyReading, Failure, Scored, Trained
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.data.split import Spans
    from cellwright.forecaster import Forecaster
    from cellwright.kpis._running import Running
    from models._contract import Problem

OF_TRAINING = ("train_energy_j", "train_co2_g", "cost_train")
OF_FORECASTING = ("energy_per_1000_j", "cost_per_million_forecasts")


class Bench:
    """Panel, spans and truth of a run."""

    def __init__(self, params: Params, ws: Workspace, rows: tuple[int, int] | None) -> None:
        from cellwright.data.split import split
        from cellwright.versioning import data_version

        self.params, self.ws = params, ws
        self.panel = Panel.open(ws.panel(params.dataset))
        self.version: DataVersion = data_version(ws, params.dataset)
        self.spans: Spans = split(params.split, *(rows or (0, self.panel.schema.rows)))
        self.truth: dict[str, Truth] = {}
        self.scale: Scale | None = None

    def candidate(self, key: str) -> Scored | Failure:
        """Score one candidate, or read its score; a failure is kept beside the scores."""
        failed = self.ws.scores / "failed" / self.ws.score(key).name
        failed.unlink(missing_ok=True)
        try:
            return self._candidate(key)
        except Exception as error:  # whatever a network of the zoo, or the exporter, throws: the others go on
            reason = str(error) if isinstance(error, CellwrightError) else f"{type(error).__name__}: {error}"
            return Failure(key=key, reason=reason).save(failed)

    def _candidate(self, key: str) -> Scored:
        from cellwright.forecaster import Forecaster

        folder = self.ws.candidate(key)
        trained = Trained.read(folder / "candidate.json")
        if trained.status == "failed":
            raise TrainingError(trained.reason)
        forecaster = Forecaster.load(folder)
        digest = self._digest(folder)
        self._know(forecaster.problem)
        if kept := self._kept(key, digest):
            return kept
        return self._measured(trained, forecaster, digest)

    def _digest(self, folder: Path) -> str:
        from cellwright.forecaster import FILE

        p = self.params
        how = [repr(section) for section in (p.score, p.energy, p.prices, p.runner.threads_per_worker, self.spans)]
        total = hashlib.sha256("\n".join([self.version.hash, *how]).encode())
        for name in (FILE, "candidate.json"):
            total.update((folder / name).read_bytes())
        return total.hexdigest()

    def _kept(self, key: str, digest: str) -> Scored | None:
        path = self.ws.score(key)
        if not path.is_file() or not path.with_suffix(".npz").is_file():
            return None
        scored = Scored.read(path)
        return scored if scored.digest == digest else None

    def _know(self, problem: Problem) -> None:
        """Gather the truth once; every candidate of a run has the same targets, history and horizon."""
        from cellwright.data.windows import Windows

        if self.truth:
            return
        windows = Windows(self.panel, problem)
        for span in SPANS:
            origins = windows.origins(*getattr(self.spans, span))
            self.truth[span] = Truth.of(self.panel, problem.targets, origins, problem.horizon)
        self.scale = Scale.of(self.panel, problem.targets, *self.spans.train, problem.season)
        self._save_truth(problem)

    def _save_truth(self, problem: Problem) -> None:
        arrays: dict[str, np.ndarray] = {}
        for span, truth in self.truth.items():
            arrays |= {f"{span}_truth": truth.values, f"{span}_mask": truth.mask, f"{span}_origins": truth.origins}
        arrays |= {
            "sites": np.array(self.panel.schema.sites),
            "targets": np.array(problem.targets),
            "times_ms": self.panel.times_ms(),
        }
        save_arrays(self.ws.scores / "truth.npz", arrays)

    def _measured(self, trained: Trained, forecaster: Forecaster, digest: str) -> Scored:
        from cellwright.data.windows import Windows
        from cellwright.kpis._running import Samples, observe

        windows = Windows(self.panel, forecaster.problem)
        found = self._forecast(trained.key, forecaster, windows)
        samples = Samples(windows, self.truth["validation"].origins, self.params.score.batch)
        running = observe(forecaster, samples, self.params, self.ws.onnx(trained.key))
        costs = costs_of(trained, trained.energy, running, self.params)
        return Scored(
            key=trained.key,
            title=trained.title,
            status=trained.status,
            reason=trained.reason,
            validation=forecast_kpis(found["validation"]),
            test=forecast_kpis(found["test"]),
            cost=cost_kpis(costs),
            sources=self._sources(trained, running),
            mae_by_step=self._by_step(found["test"]),
            mae_by_site=mean_error_by(2, found["test"]),
            validation_pairs=[],
            test_pairs=[],
            digest=digest,
        ).save(self.ws.score(trained.key))

    def _forecast(self, key: str, forecaster: Forecaster, windows: Any) -> dict[str, Forecasts]:
        """Forecast both spans with every core (nothing is timed here) and keep the arrays."""
        from cellwright.forecaster import forecast_panel
        from cellwright.training.runner import bounded

        found: dict[str, Forecasts] = {}
        with bounded(os.cpu_count() or 1):
            for span, truth in self.truth.items():
                forecast = forecast_panel(forecaster, windows, truth.origins)
                wrong = int((~np.isfinite(forecast) & truth.mask).sum())
                if wrong:
                    raise TrainingError(f"{wrong} of its forecasts of the {span} span are no finite numbers; train it again")
                assert self.scale is not None
                found[span] = evidence(forecast, truth, self.scale, self.panel.schema.grid)
        save_arrays(self.ws.score(key, ".npz"), {f"{span}_forecast": f.forecast for span, f in found.items()})
        return found

    @staticmethod
    def _by_step(test: Forecasts) -> list[float]:
        by_step = [error for error in mean_error_by(1, test) if error is not None]
        if len(by_step) < test.truth.shape[1]:
            raise TrainingError("the test span has a step without any measured target; choose another split or other targets")
        return by_step

    def _sources(self, trained: Trained, running: Running) -> dict[str, str]:
        """Where a KPI is from, if it is not measured."""
        found: dict[str, str] = {}
        if trained.energy is not None:
            found |= marked(OF_TRAINING, trained.energy, "apportioned by CPU-seconds" if trained.energy.shared else "")
        if running.energy is not None:
            found |= marked(OF_FORECASTING, running.energy, "")
        if running.without_onnx:
            found |= {"bundle_bytes": f"absent: {running.without_onnx}"}
        if self.scale is not None and not self.scale.seasonal:
            found["mase"] = "scaled by the one-step naive forecast"
        return found


def costs_of(trained: Trained, energy: EnergyReading | None, running: Running, params: Params) -> Costs:
    """The evidence of the cost KPIs."""
    on_gpu = energy is not None and (energy.gpu.energy_j or 0.0) > 0
    return Costs(
        torch=running.torch,
        onnx=running.onnx,
        parameters=trained.parameters,
        macs=running.macs,
        bundle_bytes=running.bundle_bytes,
        peak_memory_bytes=running.peak_memory_bytes,
        train_s=trained.train_s,
        train_cpu_s=trained.cpu_s,
        train_gpu_s=trained.train_s if on_gpu else None,
        train_energy=energy,
        forecast_energy=running.energy,
        forecasts_metered=running.forecasts_metered,
        prices=params.prices,
    )


def marked(kpis: tuple[str, ...], reading: EnergyReading, more: str) -> dict[str, str]:
    """The source of KPIs that rest on a reading, where it is not measured."""
    if reading.source in (None, "measured"):
        return {}
    return {kpi: f"{reading.source}: {more}" if more else str(reading.source) for kpi in kpis}
