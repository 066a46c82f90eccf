"""Page–Hinkley: the running sum of what exceeds the mean by more than a tolerance; an alarm when it has risen by a threshold.

Page, E. S.: Continuous Inspection Schemes. Biometrika 41 (1954). The usual implementations have defaults for values around 1 and few
samples; on telemetry those fire daily, so the tolerance and threshold here are in units of the residual's own usual mean (1).
"""

from __future__ import annotations

from pydantic import Field

from cellwright.lifecycle.drift._contract import Alarm, DetectorOptions

title = "Page–Hinkley"


class Options(DetectorOptions):
    """Options of Page–Hinkley."""

    tolerance: float = Field(0.3, ge=0, description="rise of the mean that is tolerated, in usual errors")
    threshold: float = Field(40, gt=0, description="summed excess that raises the alarm, in usual errors × steps")
    grace: int = Field(72, ge=1, description="steps before the first alarm")


class Detector:
    """Page–Hinkley over one site's residuals, for rises of the error."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._forget()

    def _forget(self) -> None:
        self._count, self._mean, self._sum, self._least = 0, 0.0, 0.0, 0.0
        self._since, self._after = 0, 0.0  # steps and sum since the least: the new mean

    def update(self, value: float) -> Alarm | None:
        """See the contract."""
        self._count += 1
        self._mean += (value - self._mean) / self._count
        self._sum += value - self._mean - self._options.tolerance
        self._since, self._after = self._since + 1, self._after + value
        if self._sum <= self._least:
            self._least, self._since, self._after = self._sum, 0, 0.0
        if self._count < self._options.grace or self._sum - self._least < self._options.threshold:
            return None
        before = (self._mean * self._count - self._after) / max(1, self._count - self._since)
        alarm = Alarm(self._after / self._since, before, self._since)
        self._forget()
        return alarm
