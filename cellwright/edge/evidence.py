"""What an edge knows of two versions that serve side by side: the wire form of `GET /v1/evidence`.

The edge counts and pairs; it judges nothing (cellwright/lifecycle/rollout does).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cellwright.results import Result

MAX_PAIRS = 20_000  # of each kind that one answer carries; the newest are kept


class Counts(Result):
    """Forecast requests of one version since the rollout began."""

    requests: Annotated[int, Field(ge=0)] = 0
    failed: Annotated[int, Field(ge=0)] = 0  # answered with a 5xx, or not at all
    slow: Annotated[int, Field(ge=0)] = 0  # answered later than the rollout's latency budget
    cpu_s: Annotated[float, Field(ge=0)] = 0.0  # CPU time of the model's runs


class Pair(Result):
    """One quantity of both versions for the same work: lower is better, both >= 0, in the same unit."""

    at_ms: int  # the step that was forecast, or the interval that was metered: epoch ms
    what: str = ""  # the target ("traffic"); pairs of several targets are never added up in raw units
    weight: Annotated[float, Field(gt=0)] = 1.0  # sites or forecasts behind it
    champion: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    challenger: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Evidence(Result):
    """Of one model on one edge; `champion` and `challenger` are versions."""

    edge: str
    model: str
    champion: str
    challenger: str
    since_s: float  # epoch
    counts: dict[str, Counts]
    errors: tuple[Pair, ...] = ()  # mean absolute errors of the same forecasts, as their truth arrived; oldest first
    energy: tuple[Pair, ...] = ()  # CPU seconds a forecast, interval by interval
