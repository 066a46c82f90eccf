"""Least popular first: the fewest requests go first, older ones counting less."""

from __future__ import annotations

from cellwright.edge.eviction._contract import Candidate

title = "Least popular first"


def worth(candidate: Candidate) -> float:
    """The least goes first."""
    return candidate.popularity
