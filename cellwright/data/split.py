"""The chronological split of a panel's rows."""

from __future__ import annotations

from typing import NamedTuple

from cellwright.errors import ParamsError
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
