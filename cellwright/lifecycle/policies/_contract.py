"""What a policy is: one file with `title` and `decide`. It sees what was found and when, never the telemetry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Situation:
    """What a policy decides on. Times in hours of telemetry, so that a replay and a live network are judged alike."""

    now_h: float
    first_drift_h: float | None  # of the drifts that nothing has been done about; None: there are none
    drifted_sites: int
    last_retraining_h: float | None


@dataclass(frozen=True)
class Decision:
    """Whether to retrain now, and why, in one sentence."""

    retrain: bool
    reason: str
