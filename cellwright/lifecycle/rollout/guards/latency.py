"""Latency: the share of requests that are answered later than the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from cellwright.edge.evidence import Evidence
from cellwright.lifecycle.rollout.guards._contract import GuardOptions, Opinion, compared

title = "Latency"


class Options(GuardOptions):
    """What counts as worse; the budget itself is the rollout's `latency_ms`, for the edge counts by it."""

    margin: Annotated[float, Field(ge=0, le=1)] = 0.02  # absolute: share of late answers above the champion's


def judge(evidence: Sequence[Evidence], options: Options, alpha: float) -> Opinion:
    """See `compared`."""
    champion = [e.counts[e.champion] for e in evidence if e.champion in e.counts]
    challenger = [e.counts[e.challenger] for e in evidence if e.challenger in e.counts]
    return compared(
        (sum(c.slow for c in champion), sum(c.requests for c in champion)),
        (sum(c.slow for c in challenger), sum(c.requests for c in challenger)),
        options.margin,
        alpha,
        "late",
    )
