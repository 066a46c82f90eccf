"""Forecast against truth: a few sites, the newest days of the test span, the choice beside ridge."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from cellwright.errors import CellwrightError
from cellwright.report.record import Record
from cellwright.report.style import rounded
from cellwright.report.words import number
from cellwright.workspace import Workspace

MOST_POINTS = 1008  # a week of 10 minutes
_QUANTILES = (
    (0.5, "median error"),
    (1.0, "largest error"),
    (0.0, "smallest error"),
    (0.25, "lower quartile"),
    (0.75, "upper quartile"),
)


@dataclass(frozen=True)
class Picture:
    """What the page's chart chooses from."""

    times: dict[str, list[Any]]  # step -> local time (ISO 8601) of its values, or days since the first row
    times_title: str
    sites: list[str]  # labels
    targets: list[str]
    steps: list[int]
    lines: list[str]  # candidate keys: the choice, ridge
    values: dict[str, dict[str, list[float | None]]]  # "site/target/step" (indices, step) -> "truth" or candidate -> values


def picture(ws: Workspace, record: Record) -> Picture:
    """Read the arrays of the choice and of ridge.

    Raises:
        CellwrightError: they are missing; run the step `score`.
    """
    truth = arrays(ws, "truth", ("test_truth", "test_mask", "test_origins", "times_ms"))
    ridge = ["ridge"] if any(c.key == "ridge" and c.row for c in record.candidates) else []
    keys = list(dict.fromkeys([record.champion.key, *ridge]))
    lines = {key: arrays(ws, key, ("test_forecast",))["test_forecast"] for key in keys}
    lines["truth"] = np.where(truth["test_mask"], truth["test_truth"], np.float32(np.nan))
    sites = _chosen_sites(np.abs(lines[keys[0]] - lines["truth"]))
    steps = sorted({1, record.board.horizon})
    shown = _with_gaps(truth["test_origins"], record.board.stride)
    rows = truth["test_origins"][shown]
    clock = {str(step): _clock(record, truth["times_ms"][rows + step - 1]) for step in steps}
    content = {
        f"{i}/{t}/{step}": {name: _series(values[:, step - 1, site, t], shown) for name, values in lines.items()}
        for i, (site, _) in enumerate(sites)
        for t in range(len(record.board.targets))
        for step in steps
    }
    labels = [f"{record.schema.sites[site]} ({why})" for site, why in sites]
    return Picture(clock, _clock_title(record), labels, record.board.targets, steps, keys, content)


def arrays(ws: Workspace, key: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of a score file: of a candidate, or of `truth`.

    Raises:
        CellwrightError: the file or one of them is missing.
    """
    path = ws.scores / "truth.npz" if key == "truth" else ws.score(key, ".npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, KeyError, ValueError) as error:
        raise CellwrightError(
            f"{path} lacks the forecasts that are asked for ({error}); run `cellwright step score` again"
        ) from error


def _with_gaps(origins: np.ndarray, stride: int) -> np.ndarray:
    """Positions of the newest windows, up to a week of 10 minutes; where rows are missing between two, the first is named twice.

    `stride`: rows from one window to the next, where none are missing.
    """
    last = np.arange(max(0, len(origins) - MOST_POINTS), len(origins))
    before_gap = np.flatnonzero(np.diff(origins[last]) > stride)
    return np.insert(last, before_gap + 1, last[before_gap])


def _chosen_sites(error: np.ndarray) -> list[tuple[int, str]]:
    """(site, why) of up to five sites by their mean error; `error`: (windows, horizon, sites, targets), NaN where masked."""
    counts = np.isfinite(error).sum(axis=(0, 1, 3))
    mean = np.nansum(error, axis=(0, 1, 3)) / np.maximum(counts, 1)
    order = [int(s) for s in np.argsort(mean, kind="stable") if counts[s]]
    chosen: dict[int, str] = {}
    for share, why in _QUANTILES:
        if order:
            site = order[round(share * (len(order) - 1))]
            chosen.setdefault(site, f"{why}, MAE {number(float(mean[site]))}")
    return list(chosen.items())


def _series(values: np.ndarray, shown: np.ndarray) -> list[float | None]:
    """A line's values; None at the second naming of a position, so that the line breaks there."""
    found = values[shown].astype(np.float64)
    found[1:][np.diff(shown) == 0] = np.nan
    return rounded(found.tolist(), 4)


def _clock(record: Record, times_ms: np.ndarray) -> list[Any]:
    if record.schema.clock == "relative":
        return [round(float(t) / 86_400_000, 5) for t in times_ms]
    zone = ZoneInfo(record.schema.timezone)
    local = [datetime.fromtimestamp(t / 1000, UTC).astimezone(zone) for t in times_ms.tolist()]
    return [f"{t:%Y-%m-%d %H:%M:%S}" for t in local]


def _clock_title(record: Record) -> str:
    return "days since the first row" if record.schema.clock == "relative" else f"local time ({record.schema.timezone})"
