"""A forecast's request as JSON, and the arrays a model takes.

Request:
    {
      "bundle": "city--traffic--h6-3",                   may be left out where only one is served
      "time": "2013-12-01T00:00:00+01:00",               start of the first forecast step: ISO 8601 with an offset, or epoch ms;
                                                          on a relative clock: ms since the first row of the data set
      "site": "c17"  or  "sites": ["c17", "c18"],        whom to forecast
      "history": {"c17": {"traffic": [6 values]}},       raw telemetry of the `history` steps before `time`, oldest first;
                                                          null = not measured; a site may be null as a whole
      "lags": {"c17": {"traffic": {"144": [6 values]}}}, only where the bundle has lags, see below
      "exogenous": {"temperature": [6 values]},          only where the bundle has series joined by time: of each step the last value
                                                          known by then, raw; null = none was
      "intervals": [0.8, 0.95]                           may be left out: nominal coverages of intervals around the forecast
    }

`history` must name every site that the model looks at: the site itself, its neighbourhood (inputs "patch"), or all of them
(inputs "all"). Where the bundle has means of the nearest sites (`traffic~8`), it must name those too; of sites that are nothing
else the targets are enough.
A lag of L steps wants `history` values too: value i is the target at time + (i - history + horizon - L) · cadence, so the last
`horizon` of them lie exactly L steps before the forecast steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np

from cellwright.bundle.problem import MARK, VALID, ServedProblem
from cellwright.data.calendar import known_features
from cellwright.data.neighbours import means
from cellwright.errors import EdgeError

_KEYS = {"bundle", "time", "site", "sites", "history", "lags", "exogenous", "intervals"}
_LATEST_MS = 7_258_118_400_000  # 2200-01-01
_LARGEST = float(np.finfo(np.float32).max)


class RequestError(EdgeError):
    """A request that cannot be answered; `status` is the HTTP status it deserves."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """A request as the model takes it."""

    history: np.ndarray  # (batch, history, nodes, features) float32, NaN = missing
    known: np.ndarray  # (batch, history + horizon, known) float32
    site: np.ndarray  # (batch,) int64
    sites: tuple[str, ...]  # whom to answer for
    first_ms: int  # start of the first forecast step
    intervals: tuple[float, ...] = ()  # nominal coverages


Calendar = Callable[[int], np.ndarray]  # start of the first forecast step, ms -> (history + horizon, known) float32


def calendar(problem: ServedProblem) -> Calendar:
    """What is known of each step by its time; remembered, as all devices ask about the same few steps."""
    p = problem

    @lru_cache(maxsize=256)
    def known(first_ms: int) -> np.ndarray:
        times = first_ms + np.round(np.arange(-p.history, p.horizon) * p.cadence_ms).astype(np.int64)
        found = known_features(times, p.known, p.timezone, p.clock, p.holidays)
        found.flags.writeable = False
        return found

    return known


def parse(body: Any, problem: ServedProblem, index: Mapping[str, int], known: Calendar, offered: tuple[float, ...] = ()) -> Asked:
    """Check a request and lay it out. `index`: site -> its position; `offered`: coverages of the bundle's intervals.

    Raises:
        RequestError: 400 for what is malformed, 404 for a site that the bundle does not know.
    """
    if not isinstance(body, dict):
        raise RequestError(400, f"expected a JSON object with time, site and history, found {_kind(body)}")
    _only(body, _KEYS, "request")
    sites = _sites(body, index)
    first_ms = _time(body.get("time"), problem)
    centres = np.array([index[s] for s in sites], dtype=np.int64)
    history = _own(body, problem, index, centres) if problem.inputs == "site" else _seen(body, problem, index, centres)
    return Asked(
        history=history,
        known=known(first_ms)[None] if len(history) == 1 else np.repeat(known(first_ms)[None], len(history), axis=0),
        site=np.zeros(1, dtype=np.int64) if problem.inputs == "all" else centres,
        sites=sites,
        first_ms=first_ms,
        intervals=_intervals(body.get("intervals", []), offered),
    )


def _intervals(asked: Any, offered: tuple[float, ...]) -> tuple[float, ...]:
    if not isinstance(asked, list) or not all(type(share) in (int, float) for share in asked):
        raise RequestError(400, f"'intervals' must be a list of nominal coverages such as [0.8]; found {_kind(asked)}")
    if asked and not offered:
        raise RequestError(
            400, "'intervals': this bundle has none; leave them out, or publish one of a run that was scored since"
        )
    if unknown := [share for share in asked if share not in offered]:
        raise RequestError(
            400, f"'intervals': no interval of {_kind(unknown[0])}; there are {', '.join(f'{c:g}' for c in offered)}"
        )
    return tuple(dict.fromkeys(asked))


def _sites(body: dict[str, Any], index: Mapping[str, int]) -> tuple[str, ...]:
    if ("site" in body) == ("sites" in body):
        raise RequestError(400, "expected either 'site' (one) or 'sites' (a list)")
    asked = [body["site"]] if "site" in body else body["sites"]
    if not isinstance(asked, list) or not asked or not all(isinstance(s, str) for s in asked):
        raise RequestError(400, "'site' must be a name, 'sites' a list of names that is not empty")
    if unknown := next((s for s in asked if s not in index), None):
        raise RequestError(
            404, f"the bundle knows no site '{unknown[:80]}'; it knows {len(index)}, such as {', '.join(list(index)[:3])}"
        )
    if len(set(asked)) != len(asked):
        raise RequestError(400, "'sites' names a site twice")
    return tuple(asked)


def _time(value: Any, problem: ServedProblem) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        milliseconds = value
    elif isinstance(value, str) and problem.clock == "utc":
        milliseconds = _iso_ms(value)
    else:
        wanted = (
            "ISO 8601 with an offset, or epoch milliseconds" if problem.clock == "utc" else "milliseconds since the first row"
        )
        raise RequestError(400, f"'time' is the start of the first forecast step: expected {wanted}, found {_kind(value)}")
    if not 0 <= milliseconds < _LATEST_MS:
        raise RequestError(400, f"'time' {milliseconds} ms lies outside of what can be forecast (0 to {_LATEST_MS})")
    return milliseconds


def _iso_ms(value: str) -> int:
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        raise RequestError(400, f"'time' must be ISO 8601 like 2013-12-01T00:00:00Z, found '{value[:40]}'") from None
    if when.tzinfo is None:
        raise RequestError(
            400, f"'time' {value[:40]} has no offset, so it is not one moment; write {value[:19]}Z or {value[:19]}+01:00"
        )
    return round(when.timestamp() * 1000)


def _nodes(problem: ServedProblem, centres: np.ndarray) -> np.ndarray:
    """(batch, nodes): which sites each window sees, -1 outside of the grid."""
    if problem.inputs == "all":
        return np.arange(len(problem.sites))[None]
    if problem.neighbours is None:
        return centres[:, None]
    return np.array([problem.neighbours[c] for c in centres], dtype=np.int64)


def _own(body: dict[str, Any], problem: ServedProblem, index: Mapping[str, int], centres: np.ndarray) -> np.ndarray:
    """(batch, history, 1, features): of models that see one site alone."""
    return _with_valid(problem, _table(body, problem, index, centres)[:, :, None])


def _seen(body: dict[str, Any], problem: ServedProblem, index: Mapping[str, int], centres: np.ndarray) -> np.ndarray:
    """(batch, history, nodes, features): of models that see several sites."""
    nodes = _nodes(problem, centres)
    needed = np.unique(nodes[nodes >= 0])
    return _history(problem, nodes, needed, _table(body, problem, index, needed))


def _table(body: dict[str, Any], problem: ServedProblem, index: Mapping[str, int], needed: np.ndarray) -> np.ndarray:
    """(needed sites, history, channels without valid): what the request brings."""
    channels = problem.channels
    table = np.empty((len(needed), problem.history, len(channels)), dtype=np.float32)
    for key, used in (("lags", problem.lags), ("exogenous", problem.exogenous)):
        if key in body and not used:
            raise RequestError(400, f"'{key}': this bundle has none; leave them out")
    history = _section(body, "history", index)
    lags = _section(body, "lags", index) if problem.lags else {}
    common = _exogenous(body, problem)
    around = _around(history, problem, needed)
    for row, position in enumerate(needed.tolist()):
        site = problem.sites[position]
        rows = _measured(history, site, problem)
        late = _lagged(lags, site, problem) if problem.lags else {}
        found = (
            rows | late | common | {name: mean[:, row] for name, mean in around.items()} if len(channels) > len(rows) else rows
        )
        for c, channel in enumerate(channels):
            table[row, :, c] = found[channel]
    return table


def _exogenous(body: dict[str, Any], problem: ServedProblem) -> dict[str, np.ndarray]:
    """Series joined by time: channel -> (history,), the same for every site."""
    if not problem.exogenous:
        return {}
    given = body.get("exogenous")
    if not isinstance(given, dict):
        raise RequestError(
            400,
            f"'exogenous' must be an object, series -> the {problem.history} values known before 'time', of "
            f"{', '.join(problem.exogenous)}; found {_kind(given)}",
        )
    _exactly(given, tuple(problem.exogenous), "exogenous")
    return {name: _numbers(given[name], problem.history, f"exogenous.{name}") for name in problem.exogenous}


def _around(history: dict[str, Any], problem: ServedProblem, needed: np.ndarray) -> dict[str, np.ndarray]:
    """Means of the nearest sites: channel -> (history, needed sites)."""
    if problem.nearest is None:
        return {}
    nearest = np.array([problem.nearest[site] for site in needed.tolist()], dtype=np.int64)
    others, table = np.unique(nearest, return_inverse=True)
    values = {name: np.empty((problem.history, len(others)), dtype=np.float32) for name in problem.targets}
    for column, position in enumerate(others.tolist()):
        found = _measured(history, problem.sites[position], problem, problem.targets)
        for name in problem.targets:
            values[name][:, column] = found[name]
    return {name: means(values[name.partition(MARK)[0]], table.reshape(nearest.shape)) for name in problem.means}


def _section(body: dict[str, Any], key: str, index: Mapping[str, int]) -> dict[str, Any]:
    found = body.get(key)
    if not isinstance(found, dict):
        raise RequestError(400, f"'{key}' must be an object, site -> values; found {_kind(found)}")
    if unknown := next((s for s in found if s not in index), None):
        raise RequestError(400, f"'{key}' names site '{unknown[:80]}', which the bundle does not know")
    return found


def _of_site(section: dict[str, Any], key: str, site: str) -> dict[str, Any] | None:
    if site not in section:
        raise RequestError(
            400, f"'{key}' lacks site '{site}', which the model looks at; give its values, or null if none were measured"
        )
    found = section[site]
    if found is not None and not isinstance(found, dict):
        raise RequestError(400, f"'{key}.{site}' must be an object, feature -> values, or null; found {_kind(found)}")
    return found


def _measured(
    history: dict[str, Any], site: str, problem: ServedProblem, wanted: tuple[str, ...] | None = None
) -> dict[str, np.ndarray]:
    """What was measured at a site; `wanted`: what is enough of it, where that is not everything."""
    names = problem.measured if wanted is None else wanted
    given = _of_site(history, "history", site)
    if given is None:
        return dict.fromkeys(names, np.full(problem.history, np.nan))
    _all_there(given, names, f"history.{site}")
    _only(given, problem.measured, f"'history.{site}'")
    return {name: _numbers(given[name], problem.history, f"history.{site}.{name}") for name in names}


def _lagged(lags: dict[str, Any], site: str, problem: ServedProblem) -> dict[str, np.ndarray]:
    given = _of_site(lags, "lags", site)
    channels = [f"{target}@{lag}" for lag in problem.lags for target in problem.targets]
    if given is None:
        return dict.fromkeys(channels, np.full(problem.history, np.nan))
    _exactly(given, problem.targets, f"lags.{site}")
    out = {}
    for target in problem.targets:
        by_lag = given[target]
        if not isinstance(by_lag, dict):
            raise RequestError(400, f"'lags.{site}.{target}' must be an object, lag -> values; found {_kind(by_lag)}")
        _exactly(by_lag, tuple(map(str, problem.lags)), f"lags.{site}.{target}")
        for lag in problem.lags:
            out[f"{target}@{lag}"] = _numbers(by_lag[str(lag)], problem.history, f"lags.{site}.{target}.{lag}")
    return out


def _numbers(values: Any, count: int, where: str) -> np.ndarray:
    if not isinstance(values, list) or len(values) != count:
        found = f"{len(values)} values" if isinstance(values, list) else _kind(values)
        raise RequestError(400, f"'{where}' must be a list of {count} values, oldest first; found {found}")
    for i, value in enumerate(values):
        if value is not None and (type(value) not in (int, float) or not -_LARGEST <= value <= _LARGEST):
            raise RequestError(400, f"'{where}[{i}]' must be a number or null (not measured); found {_kind(value)}")
    return np.array(values, dtype=np.float64)


def _history(problem: ServedProblem, nodes: np.ndarray, needed: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(batch, history, nodes, features): each window's sites out of the table, whose rows are the `needed` ones."""
    seen = table[np.searchsorted(needed, nodes)].transpose(0, 2, 1, 3)
    if VALID not in problem.features:
        return np.ascontiguousarray(seen)
    seen[np.broadcast_to((nodes < 0)[:, None, :], seen.shape[:3])] = np.nan
    return _with_valid(problem, seen)


def _with_valid(problem: ServedProblem, seen: np.ndarray) -> np.ndarray:
    """The channel `valid` added, where the model has it. `seen`: (batch, history, nodes, channels)."""
    if VALID not in problem.features:
        return seen
    valid = ~np.isnan(seen[..., : len(problem.targets)]).any(axis=-1, keepdims=True)
    return np.concatenate([seen, valid.astype(np.float32)], axis=-1)


def _only(given: Mapping[str, Any], known: Collection[str], where: str) -> None:
    if unknown := given.keys() - known:
        raise RequestError(400, f"{where}: unknown key '{min(unknown)[:80]}'; known are {', '.join(sorted(known))}")


def _exactly(given: Mapping[str, Any], expected: tuple[str, ...], where: str) -> None:
    _all_there(given, expected, where)
    _only(given, expected, f"'{where}'")


def _all_there(given: Mapping[str, Any], expected: tuple[str, ...], where: str) -> None:
    if missing := [name for name in expected if name not in given]:
        raise RequestError(400, f"'{where}' lacks {missing[0]}; expected {', '.join(expected)}")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str | int | float | bool):
        return f"{value!r:.40}"
    return {"dict": "an object", "list": "a list"}.get(type(value).__name__, type(value).__name__)
