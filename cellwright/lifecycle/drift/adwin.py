"""ADWIN: an adaptive window that drops its older part when the means of two parts differ significantly.

Bifet, A., Gavaldà, R.: Learning from Time-Changing Data with Adaptive Windowing. SDM 2007. River's implementation. When it cuts, its
window still holds values from before the change, so its own mean understates the change; the change is dated apart (`dated`).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cellwright.lifecycle.drift._contract import Alarm, DetectorOptions, dated

title = "ADWIN"
_DATED = 24  # values needed to say when the change was


class Options(DetectorOptions):
    """Options of ADWIN."""

    delta: float = Field(1e-5, gt=0, lt=1, description="confidence: smaller gives fewer false alarms and a longer delay")
    grace: int = Field(72, ge=1, description="steps before the first alarm")
    least: float = Field(0.1, ge=0, description="relative change of the mean below which an alarm is not worth telling")


class Detector:
    """ADWIN over one site's residuals."""

    def __init__(self, options: Options) -> None:
        from river.drift import ADWIN

        self._options = options
        self._window: Any = ADWIN(delta=options.delta, grace_period=options.grace)
        self._seen: list[float] = []  # what the window held before it was last cut

    def update(self, value: float) -> Alarm | None:
        """See the contract."""
        self._seen.append(value)
        self._window.update(value)
        if not self._window.drift_detected:
            return None
        if len(self._seen) < _DATED:
            return None
        alarm = dated(self._seen)
        self._seen = self._seen[-alarm.ago :]
        return alarm if abs(alarm.size) >= self._options.least else None
