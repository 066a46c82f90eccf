"""Forecast error as the truth arrives: both versions forecast the same steps, and their absolute errors are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from cellwright.edge.evidence import Evidence
from cellwright.lifecycle.rollout.guards._contract import GuardOptions, Opinion, paired

title = "Forecast error"


class Options(GuardOptions):
    """What counts as worse."""

    margin: Annotated[float, Field(ge=0, le=1)] = 0.05  # relative: MAE that much above the champion's is tolerated


def judge(evidence: Sequence[Evidence], options: Options, alpha: float) -> Opinion:
    """See `paired`."""
    return paired((p for e in evidence for p in e.errors), options.margin, alpha, "error")
