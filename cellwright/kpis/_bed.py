"""The test bed of one finalist: its forecaster, its data, and the windows that it is probed on.

Legend: B windows, H history, F horizon, N nodes, O outputs, C channels, T targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from cellwright.data.neighbours import settled
from cellwright.data.scaler import fit_scaler
from cellwright.data.split import Spans, spans
from cellwright.data.windows import VALID, Windows
from cellwright.errors import TrainingError
from cellwright.forecaster import Forecaster, build, point_index
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.results import DataVersion, Trained
from cellwright.training.batches import derived_seed
from cellwright.training.candidates import Candidate, resolve
from cellwright.versioning import data_version
from cellwright.workspace import Workspace

_MOST_VALUES = 20_000_000  # values of a sample's history: 80 MB; long histories of large patches are probed on fewer windows
_LEAST_ORIGINS = 8  # of a network that takes all sites at once
_AT_ONCE = 512  # windows a call


@dataclass(frozen=True)
class Sample:
    """Windows in raw units, with their truth."""

    history: np.ndarray  # (B, H, N, C) float32, NaN = missing
    known: np.ndarray  # (B, H + F, known)
    site: np.ndarray  # (B,) int64
    target: np.ndarray  # (B, F, O, T)
    mask: np.ndarray  # (B, F, O, T) bool: really measured

    def __len__(self) -> int:
        return len(self.history)

    def chunks(self) -> Iterator[Sample]:
        """The same windows, some at a time."""
        for first in range(0, len(self), _AT_ONCE):
            yield Sample(*(a[first : first + _AT_ONCE] for a in (self.history, self.known, self.site, self.target, self.mask)))


@dataclass(frozen=True)
class Bed:
    """A finalist with all that its probes need."""

    params: Params
    ws: Workspace
    panel: Panel
    spans: Spans
    version: DataVersion
    trained: Trained
    candidate: Candidate  # with the options it was trained with
    forecaster: Forecaster

    @classmethod
    def open(cls, params: Params, ws: Workspace, key: str) -> Bed:
        """Read a finalist and its data.

        Raises:
            TrainingError: its forecaster is missing or damaged.
            CellwrightError: its record is.
        """
        panel = Panel.open(ws.panel(params.dataset))
        trained = Trained.read(ws.candidate(key) / "candidate.json")
        candidate = resolve(params, panel.schema, key, options=trained.options)
        return cls(
            params,
            ws,
            panel,
            spans(params.split, panel.schema),
            data_version(ws, params.dataset),
            trained,
            candidate,
            Forecaster.load(ws.candidate(key)),
        )

    @property
    def rng(self) -> np.random.Generator:
        """The same stream for every probe that asks."""
        return np.random.default_rng(self.params.scorecard.seed)

    @cached_property
    def test(self) -> Sample:
        """The probed windows of the test span."""
        return self.sample(Windows(self.panel, self.forecaster.problem), *self.spans.test)

    def sample(self, windows: Windows, start: int, stop: int) -> Sample:
        """At most `scorecard.windows` windows of one site whose targets lie in rows [start, stop), evenly spread.

        Raises:
            DataError: no window fits there.
        """
        origins, sites = spread(windows, start, stop, self.params.scorecard.windows, self.rng)
        raw = windows.raw(origins, sites)
        return Sample(raw.history, raw.known, sites, raw.target, raw.mask)


def spread(windows: Windows, start: int, stop: int, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Origins and sites, paired: one window drawn in each of `most` equal stretches of all that there are.

    A network that takes all sites at once gets as many origins as make that many windows of one site.
    """
    problem, origins = windows.problem, windows.origins(start, stop)
    together = problem.inputs == "all"
    sites = 1 if together else windows.sites
    wanted = max(_LEAST_ORIGINS, most // windows.sites) if together else most
    each = problem.history * problem.nodes * len(problem.features)
    count = max(1, min(len(origins) * sites, wanted, _MOST_VALUES // each))
    edges = np.linspace(0, len(origins) * sites, count + 1)
    drawn = np.minimum((edges[:-1] + rng.random(count) * np.diff(edges)).astype(np.int64), len(origins) * sites - 1)
    return origins[drawn // sites], drawn % sites


def forecast(forecaster: Forecaster, sample: Sample) -> np.ndarray:
    """(B, F, O, T) point forecasts, raw units."""
    point = point_index(forecaster.problem)
    with torch.inference_mode():
        parts = [
            forecaster(torch.from_numpy(c.history), torch.from_numpy(c.known), torch.from_numpy(c.site))[..., point].numpy()
            for c in sample.chunks()
        ]
    return np.concatenate(parts)


def mae(found: np.ndarray, sample: Sample) -> float:
    """Mean absolute error over the measured targets.

    Raises:
        TrainingError: there is none, or a forecast is no number.
    """
    if not sample.mask.any():
        raise TrainingError("no target of the probed windows was measured; raise scorecard.windows, or choose another split")
    value = float(np.abs(found[sample.mask].astype(np.float64) - sample.target[sample.mask]).mean())
    if not np.isfinite(value):
        raise TrainingError("its forecasts of these windows are no finite numbers")
    return value


def mae_of(forecaster: Forecaster, sample: Sample) -> float:
    """MAE of a forecaster on a sample."""
    return mae(forecast(forecaster, sample), sample)


def moved(forecaster: Forecaster, candidate: Candidate, panel: Panel, rows: tuple[int, int]) -> Forecaster:
    """The weights of a forecaster on other sites: `candidate` says what is forecast there.

    Its training `rows` there fit the scaler of each site, and find the neighbours where positions do not tell them.
    """
    candidate = replace(candidate, problem=settled(candidate.problem, panel, rows))
    settings = candidate.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, 0))  # weights that are replaced at once
        there = build(candidate, fit_scaler(panel, candidate.problem, settings.scaler, rows, settings.clip))
    there.network.load_state_dict(forecaster.network.state_dict())
    return there.eval()


def channels(bed: Bed) -> dict[str, list[int]]:
    """Positions in x by kind: "measured" here, "lag" of it, "mean" of the neighbours, "joined" by time, "valid"."""
    measured = {f.name for f in bed.panel.schema.features}
    kinds: dict[str, list[int]] = {kind: [] for kind in ("measured", "lag", "mean", "joined", "valid")}
    for position, name in enumerate(bed.forecaster.problem.features):
        kinds[_kind(name, measured)].append(position)
    return kinds


def _kind(name: str, measured: set[str]) -> str:
    if name == VALID:
        return "valid"
    if name in measured:
        return "measured"
    return "lag" if "@" in name else "mean" if "~" in name else "joined"


def with_history(sample: Sample, history: np.ndarray, bed: Bed) -> Sample:
    """The sample with another history, and `valid` as it follows from that: 1 where all targets of a node are there."""
    valid = channels(bed)["valid"]
    if valid:
        history[..., valid[0]] = ~np.isnan(history[..., : len(bed.forecaster.problem.targets)]).any(axis=-1)
    return replace(sample, history=history)
