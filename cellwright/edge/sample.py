"""A request made from telemetry that is there: the next steps after a panel's last rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from cellwright.bundle import store
from cellwright.bundle.keys import trusted
from cellwright.bundle.problem import ServedProblem
from cellwright.data import exogenous
from cellwright.edge.predictor import read_problem
from cellwright.errors import BundleError, UnknownName
from cellwright.panel import Panel
from cellwright.workspace import Workspace


def sample_request(
    problem: ServedProblem, panel: Panel, *, sites: tuple[str, ...] = (), origin: int | None = None, bundle: str | None = None
) -> dict[str, Any]:
    """A forecast request (see request.py) for `sites` (empty: the first one) at row `origin` (None: the row after the last).

    Values that were not measured, or lie before the segment that `origin` continues, are null.

    Raises:
        UnknownName: a site or feature that the panel lacks.
        BundleError: no row lies before `origin`.
        ParamsError: the file of a series joined by time is not in the project.
    """
    wanted = sites or problem.sites[:1]
    _check_sites(wanted, problem, panel)
    end = panel.schema.rows if origin is None else origin
    start = next((s.start for s in panel.schema.segments if s.start < end <= s.stop), None)
    if start is None:
        raise BundleError(
            f"no telemetry lies right before row {end} of '{panel.schema.dataset}': choose an origin in 1 to {panel.schema.rows}"
        )
    place = {site: i for i, site in enumerate(panel.schema.sites)}
    seen = _seen(problem, wanted)
    also = _averaged(problem, seen)
    request: dict[str, Any] = {} if bundle is None else {"bundle": bundle}
    request["time"] = _time(panel, end)
    request |= {"site": wanted[0]} if len(wanted) == 1 else {"sites": list(wanted)}
    rows = np.arange(end - problem.history, end)
    request["history"] = {s: {f: _column(panel, f, rows, start, place[s]) for f in problem.measured} for s in seen}
    request["history"] |= {s: {t: _column(panel, t, rows, start, place[s]) for t in problem.targets} for s in also}
    if problem.lags:
        request["lags"] = {s: _lags(problem, panel, rows, start, place[s]) for s in seen}
    if problem.exogenous:
        request["exogenous"] = {name: _joined(problem, panel, name, rows, start) for name in problem.exogenous}
    return request


def sample_of(ws: Workspace, name: str | None = None, *, sites: tuple[str, ...] = ()) -> dict[str, Any]:
    """A request for the latest published bundle `name` (None: the only one), from the workspace's panel of its data set.

    Raises:
        BundleError: nothing is published, or several are and none is named.
        FormatError: the panel is not there.
    """
    names = store.names(ws.published)
    if name is None and len(names) != 1:
        raise BundleError(
            f"{'name one of ' + ', '.join(names) if names else 'nothing is published yet; run `cellwright run` first'}"
        )
    chosen = name or names[0]
    folder, manifest = store.latest(ws.published, chosen, trusted(ws.keys))
    problem = read_problem(folder, manifest)
    return sample_request(problem, Panel.open(ws.panel(problem.dataset)), sites=sites, bundle=chosen)


def _check_sites(wanted: tuple[str, ...], problem: ServedProblem, panel: Panel) -> None:
    for site in wanted:
        if site not in problem.sites:
            raise UnknownName("site", site, problem.sites, "These are the sites of the bundle.")
    if missing := set(problem.sites) - set(panel.schema.sites):
        raise UnknownName("site", min(missing), panel.schema.sites, f"These are the sites of '{panel.schema.dataset}'.")


def _seen(problem: ServedProblem, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The sites whose telemetry the model looks at."""
    if problem.inputs == "all":
        return problem.sites
    if problem.neighbours is None:
        return wanted
    around = {n for site in wanted for n in problem.neighbours[problem.sites.index(site)] if n >= 0}
    return tuple(problem.sites[n] for n in sorted(around))


def _averaged(problem: ServedProblem, seen: tuple[str, ...]) -> tuple[str, ...]:
    """Further sites, whose targets only enter means."""
    if problem.nearest is None:
        return ()
    around = {n for site in seen for n in problem.nearest[problem.sites.index(site)]}
    return tuple(problem.sites[n] for n in sorted(around) if problem.sites[n] not in seen)


def _joined(problem: ServedProblem, panel: Panel, name: str, rows: np.ndarray, start: int) -> list[float | None]:
    """What a series had said by the time of each row."""
    found = exogenous.values(problem.exogenous[name], panel.times_ms(), panel.schema.clock)
    return _listed(np.where(rows >= start, found[np.maximum(rows, 0)], np.float32(np.nan)))


def _time(panel: Panel, row: int) -> str | int:
    milliseconds = panel.schema.start_ms + round(row * panel.schema.cadence_s * 1000)
    if panel.schema.clock == "relative":
        return milliseconds
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")


def _lags(
    problem: ServedProblem, panel: Panel, rows: np.ndarray, start: int, site: int
) -> dict[str, dict[str, list[float | None]]]:
    shifted = {lag: rows + problem.horizon - lag for lag in problem.lags}
    return {t: {str(lag): _column(panel, t, shifted[lag], start, site) for lag in problem.lags} for t in problem.targets}


def _column(panel: Panel, feature: str, rows: np.ndarray, start: int, site: int) -> list[float | None]:
    return _listed(np.where(rows >= start, panel.values(feature)[np.maximum(rows, 0), site], np.float32(np.nan)))


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]
