"""Two versions side by side: who answers a request, and what is learnt from both.

The challenger gets its weight's share of the requests, evenly spread, and those of the sites that are its own. A share is computed by
both (shadow), after the answer is out; when the truth of a forecast step arrives, in a later request's history or by POST /v1/truth,
both forecasts of it are held against it, once for each step ahead, however often it is told or was asked for. Errors are learnt from
those alone who may tell the truth (BELIEVED): what a model answers to an invented history says nothing of it. Nothing here judges:
cellwright/lifecycle/rollout does.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cellwright.bundle.accuracy import point
from cellwright.bundle.store import Trial
from cellwright.edge.evidence import MAX_PAIRS, Counts, Evidence, Pair
from cellwright.edge.predictor import Predictor
from cellwright.edge.request import Asked
from cellwright.edge.shelf import Tried

_INTERVAL_MS = 1_000  # CPU time of both is compared interval by interval
_MOST_PENDING = 200_000  # forecast values whose truth is waited for; steps that were asked for first are forgotten first
_MOST_SETTLED = 200_000  # (site, time)s of which is remembered that their truth was told
_LARGEST = 3.4e38  # float32's, as in request.py
BELIEVED: ContextVar[bool] = ContextVar("believed", default=True)  # whether whoever asks at the moment may tell the truth


@contextmanager
def asked_by(*, believed: bool) -> Iterator[None]:
    """Whether a trial learns errors from the requests that are answered in the block, and in tasks that it starts."""
    token = BELIEVED.set(believed)
    try:
        yield
    finally:
        BELIEVED.reset(token)


@dataclass
class _Tally:
    """Sums of one instant and quantity."""

    n: int = 0
    champion: float = 0.0
    challenger: float = 0.0


@dataclass
class _Used:
    """CPU time of one interval, by version."""

    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))


class Side:
    """One trial of one model, from its beginning to its end. Used from the event loop's thread only."""

    def __init__(self, name: str, champion: Predictor, tried: Tried) -> None:
        self.name, self.champion, self.challenger = name, champion, tried.predictor
        self.trial = tried.trial
        self._asked = self._shadowed = 0
        self._counts = {p.manifest.version: Counts() for p in (champion, tried.predictor)}
        # at_ms -> site -> steps ahead -> (2, targets): champion's, challenger's; the step that was asked for first comes first, so
        # that times far ahead, which anybody can ask for, push out nothing for longer than others do
        self._pending: OrderedDict[int, dict[str, dict[int, np.ndarray]]] = OrderedDict()
        self._waiting = 0
        self._settled: OrderedDict[tuple[int, str], set[int]] = (
            OrderedDict()
        )  # (at_ms, site) -> steps ahead whose error is counted
        self._errors: OrderedDict[tuple[int, str], _Tally] = OrderedDict()
        self._used: dict[int, _Used] = defaultdict(_Used)

    def same(self, champion: Predictor, tried: Tried) -> bool:
        """Whether this is still that trial; its weight may have changed."""
        ours = (self.champion.manifest.digest, self.challenger.manifest.digest, self.trial.since_s)
        return ours == (champion.manifest.digest, tried.predictor.manifest.digest, tried.trial.since_s)

    def change(self, trial: Trial) -> None:
        """Another weight, other sites."""
        if trial.weight != self.trial.weight:
            self._asked = 0
        self.trial = trial

    def choose(self, sites: Iterable[str]) -> Predictor:
        """Who answers. Shares are exact: after n requests the challenger has answered floor(n · weight) of them."""
        if self.trial.sites and all(site in self.trial.sites for site in sites):
            return self.challenger
        self._asked += 1
        return self.challenger if _turn(self._asked, self.trial.weight) else self.champion

    @property
    def only_computes(self) -> bool:
        """Whether the challenger answers nobody: it is warmed and watched, before everything is switched to it at once."""
        return self.trial.weight == 0 and not self.trial.sites

    def shadows(self) -> bool:
        """Whether the next request is computed by both."""
        self._shadowed += 1
        return _turn(self._shadowed, self.trial.shadow)

    def answered(self, version: str, seconds: float, *, failed: bool) -> None:
        """Count a request."""
        c, slow = self._counts[version], 1000 * seconds > self.trial.latency_ms
        self._counts[version] = c.model_copy(
            update={"requests": c.requests + 1, "failed": c.failed + failed, "slow": c.slow + slow}
        )

    def ran(self, version: str, rows: int, cpu_s: float, now_ms: int) -> None:
        """Count a run of a model."""
        c, used = self._counts[version], self._used[now_ms // _INTERVAL_MS]
        self._counts[version] = c.model_copy(update={"cpu_s": c.cpu_s + cpu_s})
        used.rows[version] += rows
        used.cpu_s[version] += cpu_s
        while len(self._used) > MAX_PAIRS:
            self._used.pop(next(iter(self._used)))

    def forecast(self, asked: Asked, champion: np.ndarray, challenger: np.ndarray) -> None:
        """Keep both forecasts of a request until their truth arrives, of the sites that both forecast.

        Each: (batch, horizon, outputs, targets, quantiles) of its own problem: one may look at all sites, the other at one, one may
        have quantiles and the other not.
        """
        if not BELIEVED.get():
            return
        cadence_ms, old, new = (
            self.champion.problem.cadence_ms,
            self._points(asked, champion),
            self._points(asked, challenger, new=True),
        )
        for site in [s for s in old if s in new]:
            for step, pair in enumerate(zip(old[site], new[site], strict=True)):
                both = np.stack(pair)
                if np.isfinite(both).all():
                    self._await(asked.first_ms + round(step * cadence_ms), site, step, both)

    def learn(self, asked_history: Mapping[str, Any], first_ms: int) -> None:
        """Truth out of a request's history: site -> target -> values before `first_ms`, oldest first, null where missing."""
        if not BELIEVED.get():
            return
        problem = self.champion.problem
        times = [first_ms - round((problem.history - i) * problem.cadence_ms) for i in range(problem.history)]
        for i, at_ms in enumerate(times):
            waiting = self._pending.get(at_ms)
            for site in [s for s in waiting if s in asked_history] if waiting else ():
                values = _measured(asked_history[site], problem.targets, problem.history, i)
                if values is not None:
                    self.truth(at_ms, site, values)

    def truth(self, at_ms: int, site: str, values: list[float | None]) -> int:
        """What was measured of each target at a site and step; returns how many forecasts it settled."""
        if all(value is None for value in values):
            return 0  # it was not measured, or has not arrived yet: a later request may bring it
        kept = self._pending.get(at_ms, {}).pop(site, {})
        self._waiting -= len(kept)
        if at_ms in self._pending and not self._pending[at_ms]:
            del self._pending[at_ms]
        if kept:
            self._remember(at_ms, site, kept)
        for place, (target, value) in enumerate(zip(self.champion.problem.targets, values, strict=True)):
            if value is None:
                continue  # not measured: these forecasts stay without their truth
            for both in kept.values():
                tally = self._errors.setdefault((at_ms, target), _Tally())
                tally.n += 1
                tally.champion += abs(float(both[0, place]) - value)
                tally.challenger += abs(float(both[1, place]) - value)
        while len(self._errors) > MAX_PAIRS:
            self._errors.popitem(last=False)
        return len(kept)

    def evidence(self, edge: str) -> Evidence:
        """All that was seen. The newest instant is left out: truth of more sites may still arrive."""
        return Evidence(
            edge=edge,
            model=self.name,
            champion=self.champion.manifest.version,
            challenger=self.challenger.manifest.version,
            since_s=self.trial.since_s,
            counts=dict(self._counts),
            errors=tuple(self._error_pairs()),
            energy=tuple(self._energy_pairs()),
        )

    def _error_pairs(self) -> Iterable[Pair]:
        newest = max((at_ms for at_ms, _ in self._errors), default=0)
        for (at_ms, what), t in sorted(self._errors.items()):
            if at_ms < newest:
                yield Pair(at_ms=at_ms, what=what, weight=t.n, champion=t.champion / t.n, challenger=t.challenger / t.n)

    def _energy_pairs(self) -> Iterable[Pair]:
        old, new = self.champion.manifest.version, self.challenger.manifest.version
        for interval, used in sorted(self._used.items())[:-1]:
            if used.rows[old] and used.rows[new]:
                each = {v: used.cpu_s[v] / used.rows[v] for v in (old, new)}
                weight = min(used.rows[old], used.rows[new])
                yield Pair(at_ms=interval * _INTERVAL_MS, weight=weight, champion=each[old], challenger=each[new])

    def _points(self, asked: Asked, forecast: np.ndarray, *, new: bool = False) -> dict[str, np.ndarray]:
        """site -> (horizon, targets), the targets in the champion's order; `new`: of the challenger."""
        problem, targets = (self.challenger if new else self.champion).problem, self.champion.problem.targets
        whole = problem.inputs == "all"
        found = point(forecast[0].transpose(1, 0, 2, 3) if whole else forecast[:, :, 0], problem.quantiles)
        order = [problem.targets.index(target) for target in targets]
        return dict(zip(problem.sites if whole else asked.sites, found[:, :, order], strict=True))

    def _remember(self, at_ms: int, site: str, steps: Iterable[int]) -> None:
        """These forecasts are counted: none of them is a second time."""
        self._settled.setdefault((at_ms, site), set()).update(steps)
        while len(self._settled) > _MOST_SETTLED:
            self._settled.popitem(last=False)

    def _await(self, at_ms: int, site: str, step: int, both: np.ndarray) -> None:
        """The first forecast of a (site, time) so many steps ahead is the one that counts; the same asked again is none."""
        if step in self._pending.get(at_ms, {}).get(site, ()) or step in self._settled.get((at_ms, site), ()):
            return
        self._pending.setdefault(at_ms, {}).setdefault(site, {})[step] = both
        self._waiting += 1
        while self._waiting > _MOST_PENDING:
            _, first = self._pending.popitem(last=False)
            self._waiting -= sum(map(len, first.values()))


def _measured(given: Any, targets: Iterable[str], count: int, index: int) -> list[float | None] | None:
    """Each target's value at a place of a request's series. None: it is no series; of sites that the model does not look at
    nothing was checked before."""
    values: list[float | None] = []
    for target in targets:
        series = given.get(target) if isinstance(given, dict) else None
        if not isinstance(series, list) or len(series) != count:
            return None
        value = series[index]
        if value is not None and not (type(value) in (int, float) and abs(value) <= _LARGEST):
            return None
        values.append(value)
    return values


def _turn(number: int, share: float) -> bool:
    """Whether the `number`-th (from 1) of an even share's turns has come."""
    return int(number * share + 1e-9) > int((number - 1) * share + 1e-9)
