"""The windows of one party as rows that can be aligned with another's: their ids, their order, their spans.

A window's id is the time stamp of its first target row, and the name of its site where sites are shared. On a relative clock time
counts from the first row, so that parties must have begun together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cellwright.data.windows import Windows
from cellwright.errors import DataError, FederationError

Align = Literal["site_time", "time"]
SPANS = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """Windows in the one order that all parties know: by time, then by the site's name."""

    times_ms: np.ndarray  # (rows,) int64: time stamp of the first target
    origins: np.ndarray  # (rows,) int64: row of it in the party's own panel
    sites: np.ndarray  # (rows,) int64: site in the party's own panel; 0 where time alone aligns

    def __len__(self) -> int:
        return len(self.origins)

    def some(self, index: np.ndarray) -> Rows:
        """Those of these positions."""
        return Rows(self.times_ms[index], self.origins[index], self.sites[index])


def rows_of(windows: Windows, align: Align) -> Rows:
    """All whole windows of a party.

    Raises:
        DataError: the panel holds none.
    """
    schema = windows.panel.schema
    origins = windows.origins(0, schema.rows)
    count = windows.sites if align == "site_time" else 1
    rank = np.argsort(np.array(schema.sites[:count]))  # sites in the order of their names
    times = windows.panel.times_ms()[origins]
    return Rows(np.repeat(times, count), np.repeat(origins, count), np.tile(rank, len(origins)).astype(np.int64))


def ids(rows: Rows, windows: Windows, align: Align) -> list[bytes]:
    """An id a row, for the private set intersection."""
    sites = [b"\0" + name.encode() if align == "site_time" else b"" for name in windows.panel.schema.sites]
    moments = (rows.times_ms + (1 << 62)).astype(">u8").tobytes()
    return [moments[8 * i : 8 * i + 8] + sites[site] for i, site in enumerate(rows.sites)]


@dataclass(frozen=True)
class Cut:
    """Chronological spans of aligned rows; targets of one never reach into the next."""

    train: np.ndarray  # positions, ascending
    validation: np.ndarray
    test: np.ndarray
    train_until_ms: int  # no telemetry from here on is trained on or scaled with

    def span(self, name: str) -> np.ndarray:
        """One of `SPANS`."""
        found: np.ndarray = getattr(self, name)
        return found


def cut(rows: Rows, *, train: float, validation: float, reach_ms: int) -> Cut:
    """Cut by shares of the different time stamps. `reach_ms`: horizon · cadence.

    All parties compute this from the times they share, and come to the same.

    Raises:
        FederationError: a span without a single row.
    """
    moments = np.unique(rows.times_ms)
    first, second = (moments[min(int(share * len(moments) + 1e-9), len(moments) - 1)] for share in (train, train + validation))
    t = rows.times_ms
    found = Cut(
        np.flatnonzero(t + reach_ms <= first),
        np.flatnonzero((t >= first) & (t + reach_ms <= second)),
        np.flatnonzero(t >= second),
        int(first),
    )
    if empty := [name for name in SPANS if not len(found.span(name))]:
        raise FederationError(
            f"{len(rows)} aligned windows at {len(moments)} times leave the {empty[0]} span empty; bring telemetry of a longer "
            "common time, or change the shares of the spans"
        )
    return found


def rows_until(windows: Windows, time_ms: int) -> tuple[int, int]:
    """Rows [0, stop) of a party's panel before a time.

    Raises:
        DataError: there is none.
    """
    stop = int(np.searchsorted(windows.panel.times_ms(), time_ms))
    if not stop:
        raise DataError(f"'{windows.panel.schema.dataset}' holds no row before the end of the training span")
    return 0, stop
