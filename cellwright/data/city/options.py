"""What can be asked of the generator."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from cellwright.errors import ParamsError

DAY_S = 86_400


@dataclass(frozen=True)
class Change:
    """A dated change of the network, from 00:00 of `day` (0: the first) on.

    `layer`: a new carrier on a block of cells. Its capacity grows by `size`, and so does demand, with a daily course of its own
    (homes that now stream in the evening). A negative `size` takes that share of the demand away instead, as when a new layer
    beside the cell offloads it. `stadium`: a venue with events of its own in the block's middle; `size` 1 is that of the old one.
    The block is `rows` × `columns` cells from the corner (`row`, `column`), each a share 0–1 of the grid's edge.
    """

    kind: Literal["layer", "stadium"]
    day: int
    size: float
    row: float
    column: float
    rows: float = 0.0
    columns: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("layer", "stadium"):
            raise ParamsError(f"a change of city is 'layer' or 'stadium', found '{self.kind}'")
        if self.day < 0 or self.size <= -1:
            raise ParamsError(f"a change needs day ≥ 0 and size > -1, found day={self.day}, size={self.size}")

    def block(self, grid: tuple[int, int]) -> list[int]:
        """Sites of the change, at least one, on a row-major grid."""
        top, left = (min(int(share * edge), edge - 1) for share, edge in zip((self.row, self.column), grid, strict=True))
        bottom = max(top + 1, min(round((self.row + self.rows) * grid[0]), grid[0]))
        right = max(left + 1, min(round((self.column + self.columns) * grid[1]), grid[1]))
        return [r * grid[1] + c for r in range(top, bottom) for c in range(left, right)]


CHANGES = (
    Change("layer", day=20, size=0.5, row=0.1, column=0.1, rows=0.1, columns=0.15),
    Change("layer", day=68, size=0.6, row=0.5, column=0.5, rows=0.5, columns=0.5),
    Change("stadium", day=82, size=1.5, row=0.8, column=0.2),
)


@dataclass(frozen=True)
class CityOptions:
    """Options of `city`. More days leave the days before them as they were, byte for byte.

    The defaults change a few cells on day 20, a quarter of the city on day 68 and add a stadium on day 82: sixty days are a
    benchmark, what is generated beyond them is for watching drift.
    """

    seed: int = 7
    days: int = 60
    benchmark_days: int | None = None  # the noise floor is that of the first so many days; None: of all
    cadence_s: int = 600
    grid: tuple[int, int] = (20, 20)
    start: str = "2026-01-05T00:00"  # UTC, a midnight; the default is a Monday
    missing_share: float = 0.0005  # rows that are left out, at random
    changes: tuple[Change, ...] = CHANGES

    def __post_init__(self) -> None:
        if self.days < 1:
            raise ParamsError(f"city needs days ≥ 1, found {self.days}")
        if self.benchmark_days is not None and not 1 <= self.benchmark_days <= self.days:
            raise ParamsError(f"city needs 1 ≤ benchmark_days ≤ days ({self.days}), found {self.benchmark_days}")
        if self.cadence_s < 60 or 1800 % self.cadence_s:
            raise ParamsError(f"city needs a cadence_s of at least 60 that divides 1,800 s, found {self.cadence_s}")
        if len(self.grid) != 2 or min(self.grid) < 2:
            raise ParamsError(f"city needs a grid of at least 2 × 2 cells, found {list(self.grid)}")
        if not 0 <= self.missing_share < 0.5:
            raise ParamsError(f"city needs 0 ≤ missing_share < 0.5, found {self.missing_share}")
        if self.start_ms % (DAY_S * 1000):
            raise ParamsError(f"city starts at a midnight (UTC), found '{self.start}'")

    @property
    def sites(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def steps(self) -> int:
        """Steps in a day."""
        return DAY_S // self.cadence_s

    @property
    def start_ms(self) -> int:
        """The first row, epoch milliseconds."""
        try:
            return int(datetime.fromisoformat(self.start).replace(tzinfo=UTC).timestamp()) * 1000
        except ValueError as error:
            raise ParamsError(f"city: start must be a date like 2026-01-05T00:00, found '{self.start}'") from error

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> CityOptions:
        """Options from the catalogue's mapping.

        Raises:
            ParamsError: unknown key (the nearest known one is named), or a value that cannot be.
        """
        _refuse_unknown(raw, cls)
        values = dict(raw)
        if "grid" in values:
            values["grid"] = tuple(values["grid"])
        if "changes" in values:
            values["changes"] = _changes(values["changes"])
        if "start" in values:
            values["start"] = values["start"].isoformat() if isinstance(values["start"], datetime) else str(values["start"])
        return cls(**values)


def _changes(raw: Sequence[Mapping[str, Any]]) -> tuple[Change, ...]:
    for change in raw:
        _refuse_unknown(change, Change)
    try:
        return tuple(Change(**change) for change in raw)
    except TypeError as error:
        raise ParamsError(f"city.changes: {error}") from error


def _refuse_unknown(raw: Mapping[str, Any], owner: type) -> None:
    known = [f.name for f in fields(owner)]
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            raise ParamsError(f"city has no option '{key}'; {hint}")
