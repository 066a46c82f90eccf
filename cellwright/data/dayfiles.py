"""The files of a panel: one Arrow IPC file a day, memory-mapped, with the panel's schema inside.

A file's metadata holds two things: `cellwright.panel`, what every day has in common (sites, features, cadence, licence …), and
`cellwright.day`, what is this day's own (its first time stamp, rows and stretches of segments). Nothing in a file depends on
later days, so a panel that grows leaves the bytes of its earlier files as they are, and DVC stores only what is new.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cellwright.errors import FormatError

CONSTANTS = b"cellwright.panel"
DAY = b"cellwright.day"

Stretch = tuple[str, int, int]  # (segment, start, stop) in rows


@dataclass(frozen=True)
class Day:
    """One mapped file."""

    path: Path
    table: pa.Table
    start_ms: int
    rows: int
    stretches: tuple[Stretch, ...]  # rows counted within the file


def map_day(path: Path) -> Day:
    """Map one file; its values are not read.

    Raises:
        FormatError: not a whole Arrow file, or not one of a panel.
    """
    table = _mapped(path)
    metadata = table.schema.metadata or {}
    if CONSTANTS not in metadata or DAY not in metadata:
        raise FormatError(
            f"{path} is an Arrow file, but not of a panel: it lacks our metadata; remove it and run normalise again"
        )
    day = json.loads(metadata[DAY])
    if day["rows"] != table.num_rows:
        raise FormatError(f"{path} holds {table.num_rows} rows, its metadata says {day['rows']}; run normalise again")
    return Day(path, table, day["start_ms"], day["rows"], tuple((n, a, b) for n, a, b in day["segments"]))


def _mapped(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            table.validate()
            return table
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise FormatError(f"{path} is not a whole Arrow file ({error}); remove it and run normalise again") from error


def constants(days: Sequence[Day]) -> dict[str, Any]:
    """What the days have in common.

    Raises:
        FormatError: they belong to different panels.
    """
    first = days[0]
    stray = next((d for d in days if d.table.schema != first.table.schema or _own(d) != _own(first)), None)
    if stray is not None:
        raise FormatError(
            f"{stray.path.name} and {first.path.name} in {first.path.parent} belong to different panels; run normalise again"
        )
    content: dict[str, Any] = json.loads(_own(first))
    return content


def _own(day: Day) -> bytes:
    return (day.table.schema.metadata or {})[CONSTANTS]


def follow(days: Sequence[Day], cadence_s: float) -> None:
    """Check that each day begins where the one before it ends.

    Raises:
        FormatError: a day is missing between two files.
    """
    rows = 0
    for day in days:
        expected = days[0].start_ms + round(rows * cadence_s * 1000)
        if day.start_ms != expected:
            raise FormatError(
                f"{day.path.parent}: {day.path.name} should begin at {expected} ms and begins at {day.start_ms} ms: "
                f"a file before it is missing or was replaced; run normalise again"
            )
        rows += day.rows


def joined_segments(days: Sequence[Day]) -> list[Stretch]:
    """Segments of the panel: stretches of the same name that touch are one."""
    out: list[Stretch] = []
    offset = 0
    for day in days:
        for name, start, stop in day.stretches:
            if out and out[-1][0] == name and out[-1][2] == offset + start:
                out[-1] = (name, out[-1][1], offset + stop)
            else:
                out.append((name, offset + start, offset + stop))
        offset += day.rows
    return out


def read_rows(days: Sequence[Day], column: str, sites: int, start: int, stop: int) -> np.ndarray:
    """(stop - start, sites): rows of one column; a view of the mapping where they lie in one file."""
    parts, offset = [], 0
    for day in days:
        low, high = max(start - offset, 0), min(stop - offset, day.rows)
        if low < high:
            parts += [c.flatten().to_numpy().reshape(-1, sites) for c in day.table.column(column).slice(low, high - low).chunks]
        offset += day.rows
    if not parts:
        kind = days[0].table.schema.field(column).type.value_type.to_pandas_dtype()
        return np.empty((0, sites), kind)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def write_day(
    path: Path, arrays: dict[str, np.ndarray], common: dict[str, Any], start_ms: int, stretches: Sequence[Stretch]
) -> None:
    """Write one file. `arrays`: column -> (rows, sites); `common`: what all days share. Equal input gives equal bytes."""
    rows, sites = next(iter(arrays.values())).shape
    columns = [pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(a).reshape(-1)), sites) for a in arrays.values()]
    day = {"start_ms": start_ms, "rows": rows, "segments": [list(s) for s in stretches]}
    schema = pa.schema(
        [pa.field(name, column.type) for name, column in zip(arrays, columns, strict=True)],
        metadata={CONSTANTS: json.dumps(common).encode(), DAY: json.dumps(day).encode()},
    )
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
