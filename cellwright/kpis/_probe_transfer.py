"""Probe: forecast another data set with the weights that were trained here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cellwright.data.split import spans
from cellwright.data.windows import Windows
from cellwright.errors import CellwrightError, TrainingError
from cellwright.kpis._bed import Bed, Sample, mae, mae_of, moved
from cellwright.kpis._probes import Found, Probes
from cellwright.panel import Panel
from cellwright.training.candidates import Candidate, resolve
from models._contract import Problem

FEEDS = ("generalisation_transfer",)
_SAME = ("history", "horizon", "inputs", "nodes", "outputs", "known", "lags", "quantiles")


def probe(bed: Bed) -> Found:
    """Carry the weights over, fit each site's scaler on the training rows there, forecast the test span there.

    Raises:
        TrainingError: no data set is named, it is not here, or cannot be forecast by this network.
    """
    name = bed.params.scorecard.transfer_to
    if name is None:
        return Found(reasons={FEEDS[0]: "scorecard.transfer_to names no other data set"})
    panel = _panel(bed, name)
    candidate = _there(bed, panel)
    shares = bed.params.split.model_copy(update={"since": None, "until": None})
    rows = spans(shares, panel.schema)
    forecaster = moved(bed.forecaster, candidate, panel, rows.train)
    sample = bed.sample(Windows(panel, forecaster.problem), *rows.test)
    evidence = Probes(
        transfer_mae=mae_of(forecaster, sample), transfer_naive_mae=mae(last_value(sample, candidate.problem), sample)
    )
    words = f"{evidence.transfer_mae:.4g} against {evidence.transfer_naive_mae:.4g}"
    return Found(evidence=evidence, notes={FEEDS[0]: f"MAE on {name}: {words} of the last value, {len(sample)} windows"})


def _panel(bed: Bed, name: str) -> Panel:
    if bed.forecaster.problem.inputs == "all":
        raise TrainingError("it sees all sites at once, so that it can forecast no others than those it was trained on")
    if not bed.ws.panel(name).is_dir():
        raise TrainingError(f"data set '{name}' is not here; make it with `cellwright run --dataset {name}`, or name another")
    panel = Panel.open(bed.ws.panel(name))
    if panel.schema.cadence_s != bed.panel.schema.cadence_s:
        raise TrainingError(
            f"'{name}' has a row every {panel.schema.cadence_s:g} s, this data set every {bed.panel.schema.cadence_s:g} s; "
            "name one of the same cadence"
        )
    return panel


def _there(bed: Bed, panel: Panel) -> Candidate:
    """The same network for the targets of the other data set."""
    asked = bed.params.problem.model_copy(update={"targets": (), "features": (), "inputs": bed.forecaster.problem.inputs})
    params = bed.params.model_copy(update={"problem": asked})
    try:
        there = resolve(params, panel.schema, bed.trained.key, options=bed.trained.options)
    except (CellwrightError, ValueError) as error:
        raise TrainingError(f"'{panel.schema.dataset}' cannot be forecast by this network: {error}") from error
    if differs := _difference(bed.forecaster.problem, there.problem):
        raise TrainingError(f"'{panel.schema.dataset}' cannot be forecast by this network: {differs}")
    return replace(there, settings=bed.candidate.settings)


def _difference(here: Problem, there: Problem) -> str:
    for name in _SAME:
        if getattr(here, name) != getattr(there, name):
            return f"its {name} would be {getattr(there, name)}, and is {getattr(here, name)} here"
    for name in ("targets", "features"):
        mine, others = getattr(here, name), getattr(there, name)
        if len(mine) != len(others):
            return f"it has {len(others)} {name} ({', '.join(others)}), and {len(mine)} here ({', '.join(mine)})"
    return ""


def last_value(sample: Sample, problem: Problem) -> np.ndarray:
    """(B, F, O, T): the newest measured value of each target, repeated; the mean of what is known where there is none."""
    newest = np.full((len(sample), problem.nodes, len(problem.targets)), np.nan, np.float32)
    for step in range(problem.history):
        now = sample.history[:, step, :, : len(problem.targets)]
        newest = np.where(np.isnan(now), newest, now)
    own = newest if problem.inputs == "all" else newest[:, problem.nodes // 2][:, None]
    return np.broadcast_to(np.where(np.isnan(own), np.nanmean(own), own)[:, None], sample.target.shape)
