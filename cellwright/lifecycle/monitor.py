"""Watch a champion on the telemetry that arrived since: score it, look for drift at every site, decide on retraining.

Telemetry is released by time stamp, `monitor.batch_h` a run. A detector sees only what is left of it: the absolute residual of the
forecast one step ahead, divided by the site's usual error at that hour of a weekday or weekend. (By hour alone, the quiet weekends of
business cells set off ADWIN some six times a day in a city of 400 cells where nothing changes.) It never sees a row that was not
released, nor any record of what was changed in the network.

A run that is killed has happened or not. What it found stays in the state until `acknowledge`: the next `observe` returns it
again before it releases anything, so that no event is lost.
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
from cellwright.lifecycle.drift._contract import Alarm, make
from cellwright.lifecycle.policies._contract import Decision, Situation
from cellwright.lifecycle.state import HOURS, Drift, State
from cellwright.panel import Panel
from cellwright.params import Params
from cellwright.results import Observation, SiteDrift
from cellwright.workspace import Workspace

if TYPE_CHECKING:
    from cellwright.data.windows import Windows
    from cellwright.forecaster import Forecaster

BASELINE_H = 672.0  # telemetry before the first watched row that says what is usual: four weeks, for the weekends
_LEAST_H = 336.0  # of it that the champion was not trained on: two weeks, or its training rows are taken too
_EVERY = 2  # rows of it that are forecast: every other one is enough for a mean
_MOST = 10.0  # a residual counts at most this many usual errors: one outlier is no drift


def observe(params: Params, ws: Workspace, folder: Path, version: str, *, name: str, batch_h: float | None = None) -> Observation:
    """Release the next telemetry to the champion in `folder`, `version` of the registered model `name`, and say what was found.

    Each registered model is watched on its own. Until `acknowledge` is called it says the same again.

    Raises:
        NothingNew: nothing has arrived since the last run.
        FormatError: the panel or the monitor's state is damaged.
    """
    from cellwright.data.windows import Windows
    from cellwright.forecaster import Forecaster

    path = _path(ws, name)
    before = State.read(path)
    if before is not None and before.untold is not None:
        return Observation.model_validate_json(before.untold)
    panel = Panel.open(ws.panel(params.dataset))
    forecaster = Forecaster.load(folder)
    windows = Windows(panel, forecaster.problem)
    state = (
        before if before and before.version == version else _begin(params, panel, forecaster, windows, folder, version, before)
    )
    ahead = forecaster.problem.horizon - 1  # the last forecasts are held against rows after the batch
    stop = min(panel.schema.rows, state.scored + _rows(panel, batch_h or params.monitor.batch_h) + ahead)
    errors = _errors(forecaster, windows, state.scored, stop)
    if not len(errors):
        raise NothingNew(f"{params.dataset}: nothing new since row {state.scored} ({_iso(panel, state.scored)})")
    seen = _appended(state, panel, errors).remembering(_rows(panel, params.monitor.memory_h))
    after, found = _detected(params, panel, seen, state.scored)
    after = after.gathered(params.monitor.min_sites, _rows(panel, params.monitor.together_h))
    decision = _decide(params, panel, after)
    if decision.retrain:
        after = replace(after, last_retraining=after.scored)
    result = _told(params, panel, state, after, errors, found, decision)
    if decision.retrain:
        after = replace(after, pending=())
    replace(after, untold=result.model_dump_json()).save(path)
    return result


def acknowledge(ws: Workspace, name: str) -> None:
    """What the last `observe` of the registered model `name` found has been told: the next one may go on."""
    path = _path(ws, name)
    state = State.read(path)
    if state is not None and state.untold is not None:
        replace(state, untold=None).save(path)


def _path(ws: Workspace, name: str) -> Path:
    return ws.state / "monitor" / f"{name}.npz"


def _begin(
    params: Params, panel: Panel, forecaster: Forecaster, windows: Windows, folder: Path, version: str, before: State | None
) -> State:
    """Start to watch a champion: where the last one was watched to, or where its own data ended."""
    scored = before.scored if before else _end_of_data(params, panel, folder)
    start = max(windows.problem.history, _first_usual(panel, folder, scored))
    sites = len(panel.schema.sites)
    return State(
        version=version,
        scored=scored,
        baseline=_usual(panel, _errors(forecaster, windows, start, scored, _EVERY), start),
        residuals=np.empty((0, sites), np.float32),
        since=np.full(sites, scored, np.int64),
        last_retraining=before.last_retraining if before else None,
    )


def _first_usual(panel: Panel, folder: Path, scored: int) -> int:
    """First of the rows before `scored` that say what is usual.

    On rows that it was trained on a champion errs less than it will from now on. They count only where less than two weeks
    have passed since them: the hours of one weekend are too few for a mean, and a detector would take its luck for a change.
    Records of old do not say which rows they are.
    """
    start = scored - _rows(panel, BASELINE_H)
    learnt = read_json(folder / "candidate.json").get("train_rows")
    if learnt is not None and learnt[1] <= scored - _rows(panel, _LEAST_H):
        return max(start, int(learnt[1]))
    return start


def _end_of_data(params: Params, panel: Panel, folder: Path) -> int:
    """The first row that the champion's benchmark had not seen."""
    from cellwright.data.split import spans

    rows = int(read_json(folder / "candidate.json")["data"]["rows"])
    return min(rows, spans(params.split, panel.schema).test.stop)


def _errors(forecaster: Forecaster, windows: Windows, start: int, stop: int, every: int = 1) -> np.ndarray:
    """(rows, sites) absolute error one step ahead, first target, for the rows whose window is whole by `stop`; NaN: not measured.

    every: forecast every n-th row only.
    """
    from cellwright.forecaster import forecast_panel

    horizon, sites = windows.problem.horizon, len(windows.panel.schema.sites)
    last = stop - horizon + 1
    if last <= start:
        return np.empty((0, sites), np.float32)
    out = np.full((last - start, sites), np.nan, np.float32)
    origins = windows.origins(start, stop)[::every]
    forecast = forecast_panel(forecaster, windows, origins)[:, 0, :, 0]
    target = windows.problem.targets[0]
    truth, good = windows.panel.values(target)[origins], windows.panel.good(target)[origins]
    out[origins - start] = np.where(good, np.abs(truth - forecast), np.nan)
    return out


def _usual(panel: Panel, errors: np.ndarray, start: int) -> np.ndarray:
    """(HOURS, sites) mean absolute error by `_hours`; an hour without a measurement takes the site's mean."""
    hours = _hours(panel)[start : start + len(errors)]
    table = np.tile(_mean(errors, np.ones(errors.shape[1])), (HOURS, 1))
    for hour in np.unique(hours):
        table[hour] = _mean(errors[hours == hour], table[hour])
    return table.astype(np.float32)


def _mean(errors: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """(sites,) mean of what was measured; `otherwise` where nothing was, or no error was made."""
    counted = np.isfinite(errors).sum(axis=0)
    mean = np.nansum(errors, axis=0) / np.maximum(counted, 1)
    return np.where(mean > 0, mean, otherwise)


def _appended(state: State, panel: Panel, errors: np.ndarray) -> State:
    hours = _hours(panel)[state.scored : state.scored + len(errors)]
    ratio = np.minimum(errors / state.baseline[hours], _MOST).astype(np.float32)
    return replace(state, scored=state.scored + len(errors), residuals=np.concatenate([state.residuals, ratio]))


def _detected(params: Params, panel: Panel, state: State, new: int) -> tuple[State, list[Drift]]:
    """Replay what each site's detector remembers, and take what it says of rows from `new` on."""
    since, found = state.since.copy(), list[Drift]()
    first = state.scored - len(state.residuals)
    times = panel.times_ms()
    for site, name in enumerate(panel.schema.sites):
        for row, alarm in _alarms(params, state.residuals[:, site], first, int(since[site]), new):
            began = first + _measured_ago(state.residuals[: row - first + 1, site], alarm.ago)
            found.append(Drift(name, row, int(times[row]), alarm.size, began))
            since[site] = row + 1
    found.sort(key=lambda d: (d.row, d.site))
    return replace(state, since=since, pending=(*state.pending, *found)), found


def _alarms(params: Params, residuals: np.ndarray, first: int, since: int, new: int) -> Iterator[tuple[int, Alarm]]:
    """(row, alarm) of each alarm of one site from row `new` on; after it the site has a fresh detector."""
    detector = make(params.monitor.detector, params.monitor.detector_options)
    for offset in np.flatnonzero(np.isfinite(residuals[max(0, since - first) :])) + max(0, since - first):
        alarm = detector.update(float(residuals[offset]))
        if alarm is not None and first + offset >= new:
            yield first + int(offset), alarm
            detector = make(params.monitor.detector, params.monitor.detector_options)


def _measured_ago(residuals: np.ndarray, steps: int) -> int:
    """Position of the value `steps` measured values before the end, the last one included."""
    return int(np.flatnonzero(np.isfinite(residuals))[-steps])


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
        drifts=[_site_drift(panel, d) for d in found],
        pending=[_site_drift(panel, d) for d in after.pending],
        retrain=decision.retrain,
        reason=decision.reason,
    )


def _site_drift(panel: Panel, drift: Drift) -> SiteDrift:
    began = None if drift.began is None else _iso(panel, drift.began)
    return SiteDrift(site=drift.site, time=_iso(panel, drift.row), size=drift.size, began=began)


def _rows(panel: Panel, hours: float) -> int:
    return max(1, round(hours * 3600 / panel.schema.cadence_s))


def _hours(panel: Panel) -> np.ndarray:
    """(rows,) hour of the day, local time: 0-23 on weekdays, 24-47 on weekends (a relative clock has none)."""
    from cellwright.data.calendar import NAMES, calendar

    schema = panel.schema
    known = calendar(panel.times_ms(), schema.timezone, schema.clock)
    hour = (known[:, NAMES.index("hour")] * 24 + 1e-4).astype(np.int64) % 24
    return hour + 24 * (known[:, NAMES.index("weekend")] > 0)


def _iso(panel: Panel, row: int) -> str:
    """Start of a row: ISO 8601, or `row N` on a relative clock."""
    schema = panel.schema
    if schema.clock == "relative":
        return f"row {row}"
    moment = np.datetime64(int(schema.start_ms + row * schema.cadence_s * 1000), "ms")
    return f"{np.datetime_as_string(moment, unit='s')}Z"
