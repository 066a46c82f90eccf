"""Largest first: one large version goes rather than many small ones."""

from __future__ import annotations

from cellwright.edge.eviction._contract import Candidate

title = "Largest first"


def worth(candidate: Candidate) -> float:
    """The least goes first."""
    return -float(candidate.bytes)
