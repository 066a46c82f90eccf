"""Fewest requests a byte first: what brings the fewest requests for the room it takes goes first."""

from __future__ import annotations

from cellwright.edge.eviction._contract import Candidate

title = "Fewest requests a byte first"


def worth(candidate: Candidate) -> float:
    """The least goes first."""
    return candidate.popularity / max(1, candidate.bytes)
