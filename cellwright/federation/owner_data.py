"""An owner's data as a task sees them: windows, scaled by what the owner's own training rows say (M.3387 10.4).

Windows are views of the panel's columns and are gathered a batch at a time. What was prepared is kept by folder and task, the least
recently used of it let go of above `MOST_BYTES`: thousands of owners may live in one process.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from cellwright.data import channels
from cellwright.data.calendar import known_features
from cellwright.data.scaler import Scaler, fit_scaler
from cellwright.data.windows import Windows
from cellwright.errors import CellwrightError, Refused
from cellwright.federation.contract import Task
from cellwright.federation.initial import problem_of
from cellwright.forecaster import Forecaster, assembled
from cellwright.panel import Panel, PanelSchema
from cellwright.training.batches import Loaded, Pool, Scaled, scaled
from models._contract import Batch, Network, Problem

MOST_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Span:
    """The windows of one span that have a measured target; each is one site's at one origin."""

    pool: Pool
    index: np.ndarray  # (windows,) int32: their numbers in the pool

    def __len__(self) -> int:
        return len(self.index)

    def load(self, chosen: np.ndarray) -> Loaded:
        """Gather windows by their position in `index`."""
        return self.pool.load(self.index[chosen].astype(np.int64))


class OwnerData:
    """One owner's panel, as one task sees it."""

    def __init__(self, owner: str, panel: Panel, task: Task, problem: Problem) -> None:
        self.owner, self.task, self.problem, self.panel = owner, task, problem, panel
        self.windows = Windows(panel, problem, known=_calendar(panel.schema, problem))
        self._forecaster: Forecaster | None = None

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the owner's sites."""
        return self.panel.schema.sites

    @cached_property
    def training(self) -> Span:
        """Windows to train on; none that lacks its lags, as in central training."""
        return self._span(self.task.train, whole_lags=True)

    @cached_property
    def validation(self) -> Span:
        return self._span(self.task.validation)

    @cached_property
    def test(self) -> Span:
        return self._span(self.task.test)

    @cached_property
    def empty(self) -> bool:
        """Whether no target was measured in the training rows, or only where no window fits."""
        return not any(self.panel.good(t)[slice(*self.task.train)].any() for t in self.problem.targets) or not len(self.training)

    @cached_property
    def scaler(self) -> Scaler:
        """Fitted on the owner's own training rows.

        Raises:
            Refused: a feature without a measured value, or below 0 under `log`.
        """
        try:
            return fit_scaler(self.panel, self.problem, self.task.scaler, self.task.train, self.task.clip)
        except CellwrightError as error:
            raise Refused(f"{self.owner}: {error}") from None

    def forecaster(self, network: Network) -> Forecaster:
        """The network with the owner's scaler around it."""
        if self._forecaster is None or self._forecaster.network is not network:
            identity = {"key": self.task.model, "model": self.task.model, "preset": None, "sha256": None}
            self._forecaster = assembled(network, self.scaler, None, identity)
        return self._forecaster

    def batch(self, network: Network, span: Span, chosen: np.ndarray) -> Batch:
        """Windows of a span, by their position in it, normalised."""
        return scaled(self.forecaster(network), span.load(chosen))

    def batches(self, network: Network) -> Iterable[Batch]:
        """All training windows, in order, as a closed form is fitted on them."""
        return Scaled(self.training.pool, self.forecaster(network))

    @property
    def bytes(self) -> int:
        """About what this keeps in memory."""
        rows, sites = self.panel.schema.rows, len(self.sites)
        return rows * (8 + sites * (4 + 2 + 8) * len(self.panel.schema.features)) + 2048

    def _span(self, rows: tuple[int, int], *, whole_lags: bool = False) -> Span:
        try:
            origins = self.windows.origins(*rows, whole_lags=whole_lags)
        except CellwrightError as error:
            raise Refused(f"{self.owner}: {error}") from None
        measured = np.zeros((len(origins), self.windows.sites), dtype=bool)
        for target in self.problem.targets:
            before = np.pad(self.panel.good(target).cumsum(axis=0, dtype=np.int32), ((1, 0), (0, 0)))
            measured |= before[origins + self.problem.horizon] > before[origins]
        return Span(Pool(self.windows, origins), np.flatnonzero(measured).astype(np.int32))


def owner_data(owner: str, folder: Path, task: Task) -> OwnerData:
    """What an owner's panel folder holds for a task; prepared once.

    Raises:
        Refused: a cadence, feature, target or rows that the task wants and the panel lacks; it is named.
        FormatError: no panel there, or one that is damaged.
    """
    key = ((owner, str(folder)), _stamp(folder), _digest(task))
    with _shelf.lock:
        found = _shelf.get(key)
        if found is None:
            problem, panel = problem_of(task), Panel.open(folder)
            check(owner, panel.schema, task, problem)
            found = OwnerData(owner, _held(panel, problem), task, problem)
            _shelf.put(key, found)
        return found


def forget(owner: str, folder: Path, task: Task) -> None:
    """Let go of what was prepared."""
    _shelf.drop((owner, str(folder)), _digest(task))


def check(owner: str, schema: PanelSchema, task: Task, problem: Problem) -> None:
    """Whether the panel offers what the task wants; a task can only be joined by owners whose data are aligned with it.

    Raises:
        Refused: what is missing.
    """
    names = [f.name for f in schema.features]
    wanted = dict.fromkeys((*problem.targets, *channels.measured(problem)))
    if schema.cadence_s != problem.cadence_s:
        raise Refused(
            f"{owner}: its cadence is {schema.cadence_s:g} s, the task wants {problem.cadence_s:g} s; normalise its data to that"
        )
    for name in wanted:
        if name not in names:
            what = "target" if name in problem.targets else "feature"
            raise Refused(
                f"{owner}: the task wants the {what} '{name}', its panel has {', '.join(names)}; align its features first"
            )
    if task.test[1] > schema.rows or min(*task.train, *task.validation, *task.test) < 0:
        raise Refused(
            f"{owner}: the task's spans reach to row {task.test[1]}, its panel has {schema.rows} rows; bring its data up to date"
        )


def _held(panel: Panel, problem: Problem) -> Panel:
    """The columns that are needed, so that the rest of the files can be let go of."""
    names = dict.fromkeys((*problem.targets, *channels.measured(problem)))
    features = tuple(f for f in panel.schema.features if f.name in names)
    schema = panel.schema.model_copy(update={"features": features, "targets": problem.targets})
    values = {name: panel.values(name) for name in names}
    return Panel.from_arrays(schema, values, {name: panel.flags(name) for name in names})


class _Rows(NamedTuple):
    """What the calendar of a panel's rows depends on."""

    start_ms: int
    cadence_s: float
    rows: int
    names: tuple[str, ...]
    timezone: str
    clock: Literal["utc", "relative"]
    holidays: str


def _calendar(schema: PanelSchema, problem: Problem) -> np.ndarray:
    s = schema
    return _known(_Rows(s.start_ms, s.cadence_s, s.rows, problem.known, s.timezone, s.clock, problem.holidays))


@lru_cache(maxsize=4)
def _known(of: _Rows) -> np.ndarray:
    """Calendar channels, (rows, known): the same for every owner of a data set."""
    times = of.start_ms + (np.arange(of.rows) * of.cadence_s * 1000).round().astype(np.int64)
    return known_features(times, of.names, of.timezone, of.clock, of.holidays)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the panel's files: data that changed are read again."""
    found = ((path.name, path.stat()) for path in sorted(folder.glob("*.arrow")))
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def _digest(task: Task) -> bytes:
    return hashlib.sha256(task.model_dump_json(exclude={"seed", "options", "model", "request"}).encode()).digest()


_Key = tuple[tuple[str, str], object, bytes]


class _Shelf:
    """The owners' data that are kept, the least recently used first."""

    def __init__(self) -> None:
        self.lock, self.bytes = threading.RLock(), 0
        self._kept: OrderedDict[_Key, OwnerData] = OrderedDict()

    def get(self, key: _Key) -> OwnerData | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: _Key, data: OwnerData) -> None:
        self._kept[key] = data
        self.bytes += data.bytes
        while len(self._kept) > 1 and self.bytes > MOST_BYTES:
            self.bytes -= self._kept.popitem(last=False)[1].bytes

    def drop(self, owner: tuple[str, str], digest: bytes) -> None:
        with self.lock:
            for key in [key for key in self._kept if key[0] == owner and key[2] == digest]:
                self.bytes -= self._kept.pop(key).bytes


_shelf = _Shelf()
