"""Failures: the share of requests that a version fails to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from cellwright.edge.evidence import Evidence
from cellwright.lifecycle.rollout.guards._contract import GuardOptions, Opinion, compared

title = "Failed requests"


class Options(GuardOptions):
    """What counts as worse."""

    margin: Annotated[float, Field(ge=0, le=1)] = 0.01  # absolute: share of failed requests above the champion's


def judge(evidence: Sequence[Evidence], options: Options, alpha: float) -> Opinion:
    """See `compared`."""
    champion = [e.counts[e.champion] for e in evidence if e.champion in e.counts]
    challenger = [e.counts[e.challenger] for e in evidence if e.challenger in e.counts]
    return compared(
        (sum(c.failed for c in champion), sum(c.requests for c in champion)),
        (sum(c.failed for c in challenger), sum(c.requests for c in challenger)),
        options.margin,
        alpha,
        "failed",
    )
