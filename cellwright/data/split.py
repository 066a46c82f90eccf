"""The chronological split of a panel's rows."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cellwright.errors import ParamsError
from cellwright.panel import PanelSchema
from cellwright.params import Split


class Span(NamedTuple):
    """Rows [start, stop)."""

    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


class Spans(NamedTuple):
    """Training, validation and test rows, in this order of time."""

    train: Span
    validation: Span
    test: Span


def spans(shares: Split, schema: PanelSchema) -> Spans:
    """The spans of a panel, or of the stretch `since` – `until` of it.

    Raises:
        ParamsError: shares that do not add up to 1, a time that cannot be read, or a stretch without rows.
    """
    start = 0 if shares.since is None else _row(shares.since, schema, "since")
    stop = schema.rows if shares.until is None else _row(shares.until, schema, "until")
    if start >= stop:
        raise ParamsError(
            f"split: no rows between since ({shares.since}) and until ({shares.until}); the panel of {schema.dataset} has "
            f"{schema.rows} rows from {_time(schema, 0)} to {_time(schema, schema.rows)}"
        )
    return split(shares, start, stop)


def _row(time: str | int, schema: PanelSchema, name: str) -> int:
    """The first row at or after a time, within the panel."""
    if isinstance(time, int):
        return min(max(time, 0), schema.rows)
    if schema.clock == "relative":
        raise ParamsError(f"split.{name}: {schema.dataset} has a relative clock; give a row number, found '{time}'")
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        raise ParamsError(f"split.{name} must be a time like 2026-03-06T00:00, or a row number; found '{time}'") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(schema.timezone))
    row = math.ceil((moment.timestamp() * 1000 - schema.start_ms) / (schema.cadence_s * 1000) - 1e-9)
    return min(max(row, 0), schema.rows)


def _time(schema: PanelSchema, row: int) -> str:
    if schema.clock == "relative":
        return f"row {row}"
    return datetime.fromtimestamp(schema.start_ms / 1000 + row * schema.cadence_s, UTC).isoformat()


def split(shares: Split, start: int, stop: int) -> Spans:
    """Cut rows [start, stop): floor(share · rows) for training, then for validation; the test span takes the rest.

    Raises:
        ParamsError: the shares do not add up to 1.
    """
    total = shares.train + shares.validation + shares.test
    if abs(total - 1) > 1e-6:
        raise ParamsError(f"split: train + validation + test must be 1, found {total:g}")
    rows = stop - start
    first = start + _floor(shares.train * rows)
    second = first + _floor(shares.validation * rows)
    return Spans(Span(start, first), Span(first, second), Span(second, stop))


def _floor(value: float) -> int:
    """Floor that does not lose a row to the binary form of 0.1."""
    return int(value + 1e-9)
