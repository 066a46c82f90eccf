"""Energy: CPU seconds a forecast, metered in the same intervals for both versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from cellwright.edge.evidence import Evidence
from cellwright.lifecycle.rollout.guards._contract import GuardOptions, Opinion, paired

title = "Energy a forecast"


class Options(GuardOptions):
    """What counts as worse."""

    margin: Annotated[float, Field(ge=0, le=10)] = 0.5  # relative: a better model may cost half as much again


def judge(evidence: Sequence[Evidence], options: Options, alpha: float) -> Opinion:
    """See `paired`."""
    return paired((p for e in evidence for p in e.energy), options.margin, alpha, "CPU time a forecast")
