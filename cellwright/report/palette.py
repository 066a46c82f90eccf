"""Colours of a report: one a candidate, the same in every chart, told apart by people who see fewer colours.

Blue, orange and black of Okabe and Ito (2008) for champion, ridge and truth; Paul Tol's "muted" set (2021) for the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from cellwright.report.record import Record

INK, MUTED, GRID, TRUTH = "#1d2733", "#5b6875", "#e6eaee", "#1d2733"
CHAMPION, RIDGE = "#0072b2", "#d55e00"
_OTHERS = ("#44aa99", "#aa4499", "#999933", "#882255", "#88ccee", "#cc6677", "#117733", "#ddcc77", "#332288")
_DASHES = ("solid", "dash", "dot", "dashdot")
FONT = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"


@dataclass(frozen=True)
class Look:
    """How a candidate is drawn."""

    colour: str
    dash: str
    width: float


def looks(record: Record) -> dict[str, Look]:
    """A look for each candidate, by key."""
    found: dict[str, Look] = {}
    others = 0
    for candidate in record.candidates:
        if candidate.key == record.board.choice.key:
            found[candidate.key] = Look(CHAMPION, "solid", 3)
        elif candidate.key == "ridge":
            found[candidate.key] = Look(RIDGE, "solid", 2)
        else:
            found[candidate.key] = Look(_OTHERS[others % len(_OTHERS)], _DASHES[others // len(_OTHERS) % len(_DASHES)], 1.6)
            others += 1
    return found
