"""What every reader keeps to.

A reader is a file of this folder; its name is the `reader:` of a data set in the catalogue. It has

    title: str                                       for people
    class Options(ReaderOptions)                     its own keys below `options:` in the catalogue
    frames(files, entry, options) -> list[Part]      the telemetry, in the long form below; nothing is read yet where possible
    layout(files, entry, options) -> Layout          optional: what is known of the sites

The long form is a polars LazyFrame with a row a site and time: `time_ms` (Int64: epoch milliseconds in UTC, or any origin on a
relative clock), `site` (String), one Float32 column for each feature it brings, named as in the catalogue, and `segment`
(String) where stretches must stay apart. Rows may come in any order, twice, or with gaps: normalise sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import polars as pl

    from cellwright.catalogue import Entry

TIME = "time_ms"
SITE = "site"
SEGMENT = "segment"


class ReaderOptions(BaseModel):
    """Base of every reader's options: frozen, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Part:
    """A piece of the telemetry, in the long form, and the file to name when it is wrong."""

    file: Path
    frame: pl.LazyFrame


@dataclass(frozen=True)
class Layout:
    """What a reader knows of the sites beyond their telemetry."""

    sites: tuple[str, ...] | None = None  # all of them, in order; None: those that appear, sorted
    grid: tuple[int, int] | None = None  # (rows, columns), sites row-major
    coordinates: dict[str, tuple[float, float]] | None = None  # site -> (x, y) or (longitude, latitude)
    adjacency: tuple[tuple[int, int, float], ...] | None = None  # (site, other site, weight), by position in `sites`
    noise_floor: dict[str, float] | None = None  # target -> MAE of the generating process


class Reader(Protocol):
    """The module of a reader, as normalise uses it."""

    title: str
    Options: type[ReaderOptions]

    def frames(self, files: Sequence[Path], entry: Entry, options: Any) -> list[Part]: ...
