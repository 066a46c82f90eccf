"""`generate`: the city as files, one Parquet a day and site.json with what is known of it."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cellwright.data.city import floor, land, process
from cellwright.data.city.options import CityOptions
from cellwright.files import write_bytes, write_json

FEATURES = (
    {"name": "traffic_mbps", "unit": "Mbit/s", "low": 0.0, "high": None},
    {"name": "users", "unit": "users", "low": 0.0, "high": None},
    {"name": "prb_share", "unit": "1", "low": 0.0, "high": 1.0},
    {"name": "mcs", "unit": "index", "low": 0.0, "high": 28.0},
)
_EDGE_KM = 0.5  # of a cell


def generate(folder: Path, options: dict[str, Any]) -> None:
    """Write `YYYY-MM-DD.parquet` for every day and `site.json` into `folder`.

    Columns: time_ms (int64, UTC, start of the interval), site (string), traffic_mbps, users, prb_share, mcs (float32); a row
    a step and site in that order, rows that never arrived left out, zeros while a cell is down. The same options give the
    same bytes on any CPU (with the same pyarrow), and more `days` leave the earlier files as they are.

    Raises:
        ParamsError: an option that does not exist or cannot be.
        WorkspaceError: the disk is full or the folder is not writable.
    """
    asked = CityOptions.of(options)
    cells = land.build(asked)
    names = site_names(asked)
    truth: dict[str, list[Any]] = {"events": [], "outages": []}
    kept: list[process.Day] = []
    for day in process.days(asked, cells):
        _write_day(folder, asked, names, day)
        truth["events"] += [_happening(asked, names, e) | {"demand_mbps": round(e.demand_mbps, 2)} for e in day.events]
        truth["outages"] += [_happening(asked, names, o) for o in day.outages]
        if floor.kept_from(asked) <= day.day < floor.measured_days(asked):
            kept.append(day)
    write_json(folder / "site.json", _about(asked, cells, names, floor.measure(asked, cells, kept)) | truth)


def site_names(options: CityOptions) -> list[str]:
    """`r03c17`: row and column, so that names sort as the grid lies."""
    width = len(str(max(options.grid) - 1))
    return [f"r{r:0{width}d}c{c:0{width}d}" for r in range(options.grid[0]) for c in range(options.grid[1])]


def _write_day(folder: Path, options: CityOptions, names: list[str], day: process.Day) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    there = ~day.lost.reshape(-1)
    first_ms = options.start_ms + day.day * 86_400_000
    times_ms = np.repeat(first_ms + np.arange(options.steps, dtype=np.int64) * (options.cadence_s * 1000), options.sites)
    index = np.tile(np.arange(options.sites, dtype=np.int32), options.steps)
    columns: dict[str, Any] = {
        "time_ms": pa.array(times_ms[there]),
        "site": pa.DictionaryArray.from_arrays(pa.array(index[there]), pa.array(names)).cast(pa.string()),
    }
    columns |= {name: pa.array(values.reshape(-1)[there]) for name, values in day.features.items()}
    held = BytesIO()
    pq.write_table(pa.table(columns), held, compression="zstd", compression_level=3)
    write_bytes(folder / f"{datetime.fromtimestamp(first_ms / 1000, UTC):%Y-%m-%d}.parquet", held.getvalue())


def _about(options: CityOptions, cells: land.Land, names: list[str], errors: dict[str, Any] | None) -> dict[str, Any]:
    rows, columns = options.grid
    return {
        "sites": names,
        "grid": [rows, columns],
        "coordinates": [[c * _EDGE_KM, r * _EDGE_KM] for r in range(rows) for c in range(columns)],
        "coordinates_unit": "km",
        "land_use": [land.USES[use] for use in cells.use.tolist()],
        "capacity_mbps": [round(value, 2) for value in cells.capacity.tolist()],
        "cadence_s": options.cadence_s,
        "start_ms": options.start_ms,
        "timezone": "UTC",
        "days": options.days,
        "features": list(FEATURES),
        "targets": ["traffic_mbps"],
        "noise_floor": None if errors is None else {"traffic_mbps": errors["floor"]["mae"]},
        "noise_floor_detail": errors,
        "changes": [
            {
                "kind": change.kind,
                "time_ms": options.start_ms + change.day * 86_400_000,
                "sites": [names[site] for site in change.block(options.grid)],
                "size": change.size,
            }
            for change in options.changes
            if change.day < options.days
        ],
    }


def _happening(options: CityOptions, names: list[str], what: Any) -> dict[str, Any]:
    step_ms = options.cadence_s * 1000
    return {
        "site": names[what.site],
        "start_ms": options.start_ms + what.start * step_ms,
        "stop_ms": options.start_ms + what.stop * step_ms,
    }
