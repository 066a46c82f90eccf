"""Watch a champion on the telemetry that arrived since: score it, look for drift at every site, decide on retraining.

Telemetry is released by time stamp, `monitor.batch_h` a run. A detector sees only what is left of it: the de-seasonalised absolute
residual of the forecast one step ahead, divided by the site's usual error at that hour of day. It never sees a row that was not
released, nor any record of what was changed in the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellwright.errors import NothingNew
from cellwright.families import member
from cellwright.files import read_json
from cellwright.lifecycle.drift._contract import make
from cellwright.lifecycle.policies._contract import Decision, Situation
from cellwright.lifecycle.state import Drift, State
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.results import Observation, SiteDrift
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.data.windows import Windows
    from cellwright.forecaster import Forecaster

BASELINE_H = 240.0  # telemetry before the first watched row that says what is usual
_MOST = 10.0  # a residual counts at most this many usual errors: one outlier is no drift


def observe(params: Params, ws: Workspace, folder: Path, version: str, *, batch_h: float | None = None) -> Observation:
    """Release the next telemetry to the champion `version` in `folder`, and say what was found.

    Raises:
        NothingNew: nothing has arrived since the last run.
        FormatError: the panel or the monitor's state is damaged.
    """
    from cellwright.data.windows import Windows
    from cellwright.forecaster import Forecaster

    panel = Panel.open(ws.panel(params.dataset))
    forecaster = Forecaster.load(folder)
    windows = Windows(panel, forecaster.problem)
    path = ws.state / "monitor" / f"{params.dataset}.npz"
    before = State.read(path)
    state = (
        before if before and before.version == version else _begin(params, panel, forecaster, windows, folder, version, before)
    )
    stop = min(panel.schema.rows, state.scored + _rows(panel, batch_h or params.monitor.batch_h))
    errors = _errors(forecaster, windows, state.scored, stop)
    if not len(errors):
        raise NothingNew(f"{params.dataset}: nothing new since row {state.scored} ({_iso(panel, state.scored)})")
    seen = _appended(state, panel, errors).remembering(_rows(panel, params.monitor.memory_h))
    after, found = _detected(params, panel, seen)
    decision = _decide(params, panel, after)
    if decision.retrain:
        after = replace(after, last_retraining=after.scored)
    result = _told(params, panel, state, after, errors, found, decision)
    if decision.retrain:
        after = replace(after, pending=())
    after.save(path)
    return result


def _begin(
    params: Params, panel: Panel, forecaster: Forecaster, windows: Windows, folder: Path, version: str, before: State | None
) -> State:
    """Start to watch a champion: where the last one was watched to, or where its own data ended."""
    scored = before.scored if before else _end_of_data(params, panel, folder)
    start = max(windows.problem.history, scored - _rows(panel, BASELINE_H))
    sites = len(panel.schema.sites)
    return State(
        version=version,
        scored=scored,
        baseline=_usual(panel, _errors(forecaster, windows, start, scored), start),
        residuals=np.empty((0, sites), np.float32),
        since=np.full(sites, scored, np.int64),
        last_retraining=before.last_retraining if before else None,
    )


def _end_of_data(params: Params, panel: Panel, folder: Path) -> int:
    """The first row that the champion's benchmark had not seen."""
    from cellwright.data.split import spans

    rows = int(read_json(folder / "candidate.json")["data"]["rows"])
    return min(rows, spans(params.split, panel.schema).test.stop)


def _errors(forecaster: Forecaster, windows: Windows, start: int, stop: int) -> np.ndarray:
    """(rows, sites) absolute error one step ahead, first target, for the rows whose window is whole by `stop`; NaN: not measured."""
    from cellwright.forecaster import forecast_panel

    horizon, sites = windows.problem.horizon, len(windows.panel.schema.sites)
    last = stop - horizon + 1
    if last <= start:
        return np.empty((0, sites), np.float32)
    out = np.full((last - start, sites), np.nan, np.float32)
    origins = windows.origins(start, stop)
    forecast = forecast_panel(forecaster, windows, origins)[:, 0, :, 0]
    target = windows.problem.targets[0]
    truth, good = windows.panel.values(target)[origins], windows.panel.good(target)[origins]
    out[origins - start] = np.where(good, np.abs(truth - forecast), np.nan)
    return out


def _usual(panel: Panel, errors: np.ndarray, start: int) -> np.ndarray:
    """(24, sites) mean absolute error by hour of day; an hour without a measurement takes the site's mean."""
    hours = _hours(panel)[start : start + len(errors)]
    overall = np.nanmean(errors, axis=0)
    table = np.tile(np.where(np.isfinite(overall) & (overall > 0), overall, 1.0), (24, 1))
    for hour in range(24):
        mine = errors[hours == hour]
        counted = np.isfinite(mine).sum(axis=0)
        mean = np.nansum(mine, axis=0) / np.maximum(counted, 1)
        table[hour] = np.where((counted > 0) & (mean > 0), mean, table[hour])
    return table.astype(np.float32)


def _appended(state: State, panel: Panel, errors: np.ndarray) -> State:
    hours = _hours(panel)[state.scored : state.scored + len(errors)]
    ratio = np.minimum(errors / state.baseline[hours], _MOST).astype(np.float32)
    return replace(state, scored=state.scored + len(errors), residuals=np.concatenate([state.residuals, ratio]))


def _detected(params: Params, panel: Panel, state: State) -> tuple[State, list[Drift]]:
    """Replay what each site's detector remembers, and take what it says of rows it had not told of before."""
    since, found = state.since.copy(), list[Drift]()
    first = state.scored - len(state.residuals)
    times = panel.times_ms()
    for site, name in enumerate(panel.schema.sites):
        for row, mean in _alarms(params, state.residuals[:, site], first, int(since[site])):
            found.append(Drift(name, row, int(times[row]), mean - 1.0))
            since[site] = row + 1
    found.sort(key=lambda d: (d.row, d.site))
    return replace(state, since=since, pending=(*state.pending, *found)), found


def _alarms(params: Params, residuals: np.ndarray, first: int, since: int) -> Iterator[tuple[int, float]]:
    """(row, new mean) of each alarm of one site."""
    detector = make(params.monitor.detector, params.monitor.detector_options)
    for offset in np.flatnonzero(np.isfinite(residuals[max(0, since - first) :])) + max(0, since - first):
        mean = detector.update(float(residuals[offset]))
        if mean is not None:
            yield first + int(offset), mean
            detector = make(params.monitor.detector, params.monitor.detector_options)


def _decide(params: Params, panel: Panel, state: State) -> Decision:
    hours = panel.schema.cadence_s / 3600
    policy = member("cellwright.lifecycle.policies", params.monitor.policy, what="policy")
    situation = Situation(
        now_h=state.scored * hours,
        first_drift_h=min((d.row * hours for d in state.pending), default=None),
        drifted_sites=len({d.site for d in state.pending}),
        last_retraining_h=None if state.last_retraining is None else state.last_retraining * hours,
    )
    decision: Decision = policy.decide(situation, params.monitor)
    return decision


def _told(
    params: Params, panel: Panel, before: State, after: State, errors: np.ndarray, found: list[Drift], decision: Decision
) -> Observation:
    hours = _hours(panel)[before.scored : before.scored + len(errors)]
    usual = np.where(np.isfinite(errors), before.baseline[hours], np.nan)
    return Observation(
        dataset=params.dataset,
        version=after.version,
        first_row=before.scored,
        stop_row=after.scored,
        first=_iso(panel, before.scored),
        stop=_iso(panel, after.scored),
        mae=float(np.nanmean(errors)),
        usual_mae=float(np.nanmean(usual)),
        drifts=[SiteDrift(site=d.site, time=_iso(panel, d.row), size=d.size) for d in found],
        pending=[SiteDrift(site=d.site, time=_iso(panel, d.row), size=d.size) for d in after.pending],
        retrain=decision.retrain,
        reason=decision.reason,
    )


def _rows(panel: Panel, hours: float) -> int:
    return max(1, round(hours * 3600 / panel.schema.cadence_s))


def _hours(panel: Panel) -> np.ndarray:
    """(rows,) hour of the day, local time."""
    from cellwright.data.calendar import calendar

    schema = panel.schema
    return (calendar(panel.times_ms(), schema.timezone, schema.clock)[:, 0] * 24 + 1e-4).astype(np.int64) % 24


def _iso(panel: Panel, row: int) -> str:
    """Start of a row: ISO 8601, or `row N` on a relative clock."""
    schema = panel.schema
    if schema.clock == "relative":
        return f"row {row}"
    moment = np.datetime64(int(schema.start_ms + row * schema.cadence_s * 1000), "ms")
    return f"{np.datetime_as_string(moment, unit='s')}Z"
