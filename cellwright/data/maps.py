"""Whole maps: the windows of patches without their overlaps, for networks that forecast every site of a grid at once.

Legend: B maps, H history, F horizon, S sites, C channels (problem.features), T targets.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cellwright.data.windows import VALID, Windows
from cellwright.errors import DataError


class Maps:
    """The same telemetry as `windows` of patches see, each site once: K² times less to gather.

    Raises:
        DataError: a data set without a grid.
    """

    def __init__(self, windows: Windows) -> None:
        problem, sites, grid = windows.problem, windows.sites, windows.panel.schema.grid
        if grid is None:
            raise DataError("whole maps need sites on a grid, and this data set has none; use inputs 'site' or 'all'")
        self.problem, self.grid = problem, grid  # (rows, columns)
        features = tuple(name for name in problem.features if name != VALID)
        everything = replace(problem, inputs="all", nodes=sites, outputs=sites, features=features, grid=grid)
        self._windows = Windows(windows.panel, everything)

    def gather(self, origins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """History (B, H, S, C) in raw units, NaN where it is missing, `valid` last; and known (B, H + F, known)."""
        raw = self._windows.raw(origins, np.zeros(len(origins), np.int64))
        valid = ~np.isnan(raw.history[..., : len(self.problem.targets)]).any(axis=-1, keepdims=True)
        return np.concatenate((raw.history, valid.astype(np.float32)), axis=-1), raw.known
