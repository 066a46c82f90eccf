"""Windows: what a network sees and forecasts, as strided views over the panel; nothing is copied until a batch is gathered.

Legend: B windows of a batch, H history, F horizon, S sites, N nodes, C channels (problem.features), T targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cellwright.data import channels
from cellwright.data.calendar import known_features
from cellwright.data.channels import VALID
from cellwright.errors import DataError, ParamsError
from cellwright.panel import Panel
from models._contract import Problem

__all__ = ["VALID", "Raw", "Windows", "neighbours_of", "patch_neighbours"]


class Raw(NamedTuple):
    """A batch in raw units; NaN where nothing was measured."""

    history: np.ndarray  # (B, H, N, C) float32
    known: np.ndarray  # (B, H + F, known) float32
    target: np.ndarray  # (B, F, outputs, T) float32
    mask: np.ndarray  # (B, F, outputs, T) bool: really measured


@dataclass(frozen=True)
class _Channel:
    values: np.ndarray  # (rows, S)
    view: np.ndarray  # (rows - H + 1, H, S): a view of the values
    lag: int = 0  # steps; 0: the history itself


def patch_neighbours(grid: tuple[int, int], edge: int) -> np.ndarray:
    """(sites, edge²) int64: the sites around each site of a row-major grid, row-major, -1 outside; the centre is in the middle.

    Raises:
        ParamsError: an even edge.
    """
    if edge % 2 == 0:
        raise ParamsError(f"problem.patch must be odd, so that a patch has a centre; found {edge}")
    rows, columns = grid
    around = np.arange(edge) - edge // 2
    row = np.arange(rows)[:, None, None, None] + around[None, None, :, None]
    column = np.arange(columns)[None, :, None, None] + around[None, None, None, :]
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    return np.where(inside, row * columns + column, -1).reshape(rows * columns, edge * edge).astype(np.int64)


def neighbours_of(problem: Problem, sites: int, grid: tuple[int, int] | None) -> np.ndarray | None:
    """(sites, nodes) index table of what each site's network sees; None with inputs "all".

    Raises:
        DataError: patches of a data set without a grid.
    """
    if problem.inputs == "all":
        return None
    if problem.inputs == "site":
        return np.arange(sites, dtype=np.int64)[:, None]
    if grid is None:
        raise DataError("inputs 'patch' need sites on a grid, and this data set has none; use inputs 'site' or 'all'")
    return patch_neighbours(grid, round(problem.nodes**0.5))


class Windows:
    """All windows of a panel, as one network sees them.

    A window has an origin t0, the row of its first target: its history is rows [t0 - history, t0), its targets are rows
    [t0, t0 + horizon). It never crosses the edge of a segment; a lag value that lies before the segment is NaN.

    Raises:
        UnknownName: a feature that the panel lacks, or a country of holidays that there is not.
        DataError: patches of a data set without a grid, or what `channels.values` raises.
    """

    def __init__(
        self, panel: Panel, problem: Problem, neighbours: np.ndarray | None = None, known: np.ndarray | None = None
    ) -> None:
        """`known`: the calendar channels of all rows (rows, known), where other panels of the same rows have them already."""
        schema = panel.schema
        self.panel, self.problem, self.sites = panel, problem, len(schema.sites)
        self.neighbours = neighbours if neighbours is not None else neighbours_of(problem, self.sites, schema.grid)
        self._segment_start = np.full(schema.rows, schema.rows, dtype=np.int64)
        for segment in schema.segments:
            self._segment_start[segment.start : segment.stop] = segment.start
        self._values = {name: channels.values(panel, problem, name) for name in channels.needed(problem)}
        self._channels = [self._channel(name) for name in problem.features if name != VALID] if self._fits else []
        self._targets = [sliding_window_view(panel.values(t), problem.horizon, axis=0) for t in problem.targets if self._fits]
        self._good = [sliding_window_view(panel.good(t), problem.horizon, axis=0) for t in problem.targets if self._fits]
        if known is None:
            known = known_features(panel.times_ms(), problem.known, schema.timezone, schema.clock, problem.holidays)
        self._known = (
            sliding_window_view(known, problem.history + problem.horizon, axis=0).transpose(0, 2, 1) if self._fits else known
        )

    @property
    def _fits(self) -> bool:
        return self.panel.schema.rows >= self.problem.history + self.problem.horizon

    def _channel(self, name: str) -> _Channel:
        feature, at, lag = name.rpartition("@")
        values = self._values[feature if at else name]
        view = sliding_window_view(values, self.problem.history, axis=0).transpose(0, 2, 1)
        return _Channel(values, view, int(lag) if at else 0)

    def origins(self, start: int, stop: int, *, whole_lags: bool = False) -> np.ndarray:
        """(windows,) int64: origins of the windows whose targets lie wholly in rows [start, stop), in order of time.

        The history may reach back before `start`, not over the edge of a segment. `whole_lags` leaves out the windows whose
        lag values would lie before their segment, as training does; scoring keeps them, so that all candidates share windows.

        Raises:
            DataError: there is none.
        """
        problem = self.problem
        reach = max([problem.history, *(problem.history - problem.horizon + lag for lag in problem.lags if whole_lags)])
        pieces = [
            np.arange(max(start, segment.start + reach), min(stop, segment.stop) - problem.horizon + 1, dtype=np.int64)
            for segment in self.panel.schema.segments
        ]
        found = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)
        if not len(found):
            raise DataError(self._no_window(start, stop, reach))
        return found

    def _no_window(self, start: int, stop: int, reach: int) -> str:
        problem = self.problem
        longest = max((min(stop, s.stop) - max(start - reach, s.start) for s in self.panel.schema.segments), default=0)
        lags = f", lags {', '.join(map(str, problem.lags))}" if problem.lags and reach > problem.history else ""
        return (
            f"no window fits rows {start} to {stop} of '{self.panel.schema.dataset}': history {problem.history}{lags} and "
            f"horizon {problem.horizon} need {reach + problem.horizon} unbroken rows, the longest stretch has {max(0, longest)}; "
            "shorten problem.history, problem.lags or problem.horizon, or bring more data"
        )

    def raw(self, origins: np.ndarray, sites: np.ndarray) -> Raw:
        """Gather windows. `origins` and `sites`: (B,) each, paired; `sites` is not read with inputs "all".

        Returns the four arrays of `Raw`. Outside of the grid a patch is NaN and `valid` is 0.
        """
        problem, batch = self.problem, len(origins)
        history = np.empty((batch, problem.history, problem.nodes, len(problem.features)), dtype=np.float32)
        nodes = None if self.neighbours is None else self.neighbours[sites]
        for c, channel in enumerate(self._channels):
            history[..., c] = self._gather(channel, origins, nodes)
        if problem.inputs == "patch" and nodes is not None:
            self._mark_outside(history, nodes)
        centres = None if nodes is None else sites
        target = np.stack([_pick(view, origins, centres) for view in self._targets], axis=-1)
        mask = np.stack([_pick(view, origins, centres) for view in self._good], axis=-1)
        return Raw(history, self._known[origins - problem.history], target, mask)

    def _gather(self, channel: _Channel, origins: np.ndarray, nodes: np.ndarray | None) -> np.ndarray:
        """(B, H, N) of one channel. Position i of a lag channel holds row t0 - history + i + horizon - lag."""
        first = origins - self.problem.history + (self.problem.horizon - channel.lag if channel.lag else 0)
        short = self._segment_start[origins] - first  # positions that lie before the segment
        if channel.lag and (short > 0).any():
            return self._gather_short(channel, first, short, nodes)
        if nodes is None:
            return channel.view[first]
        return channel.view.transpose(0, 2, 1)[first[:, None], nodes].transpose(0, 2, 1)

    def _gather_short(self, channel: _Channel, first: np.ndarray, short: np.ndarray, nodes: np.ndarray | None) -> np.ndarray:
        """(B, H, N), NaN in the first `short` positions of each window."""
        position = np.arange(self.problem.history)
        rows = np.maximum(first[:, None] + position, 0)
        found = channel.values[rows] if nodes is None else channel.values[rows[:, :, None], nodes[:, None, :]]
        return np.where((position < short[:, None])[:, :, None], np.float32(np.nan), found)

    def _mark_outside(self, history: np.ndarray, nodes: np.ndarray) -> None:
        """NaN outside of the grid, and the `valid` channel, last."""
        outside = (nodes < 0)[:, None, :, None]
        np.copyto(history[..., :-1], np.nan, where=outside)
        history[..., -1] = ~np.isnan(history[..., : len(self.problem.targets)]).any(axis=-1)


def _pick(view: np.ndarray, origins: np.ndarray, sites: np.ndarray | None) -> np.ndarray:
    """(B, F, outputs) of a view (rows, S, F)."""
    if sites is None:
        return view[origins].transpose(0, 2, 1)
    return view[origins, sites][:, :, None]
