"""ADWIN: an adaptive window that drops its older part when the means of two parts differ significantly.

Bifet, A., Gavaldà, R.: Learning from Time-Changing Data with Adaptive Windowing. SDM 2007. River's implementation.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cellwright.lifecycle.drift._contract import DetectorOptions

title = "ADWIN"


class Options(DetectorOptions):
    """Options of ADWIN."""

    delta: float = Field(1e-5, gt=0, lt=1, description="confidence: smaller gives fewer false alarms and a longer delay")
    grace: int = Field(72, ge=1, description="steps before the first alarm")
    least: float = Field(0.2, ge=0, description="relative change of the mean below which an alarm is not worth telling")


class Detector:
    """ADWIN over one site's residuals."""

    def __init__(self, options: Options) -> None:
        from river.drift import ADWIN

        self._options = options
        self._window: Any = ADWIN(delta=options.delta, grace_period=options.grace)

    def update(self, value: float) -> float | None:
        """See the contract."""
        before = self._window.estimation
        self._window.update(value)
        if not self._window.drift_detected:
            return None
        now = float(self._window.estimation)
        return now if before <= 0 or abs(now / before - 1) >= self._options.least else None
