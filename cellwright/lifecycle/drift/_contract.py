"""What a drift detector is: one file with `title`, `Options` and `Detector`.

A detector watches one site. It is given one number a step, the site's de-seasonalised absolute residual (1 is usual), and says when
its mean has changed. Its state is a function of the numbers it has seen since it was made, so it is restored by replaying them:
nothing needs to be pickled. After an alarm it goes on; whoever wants it to forget makes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from cellwright.errors import ParamsError
from cellwright.families import member


class DetectorOptions(BaseModel):
    """Base of every detector's options: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Alarm:
    """The mean has changed."""

    mean: float  # since the change; 1 = as usual, 2 = twice the usual error
    before: float  # until the change
    ago: int  # steps since it changed, the present one included

    @property
    def size(self) -> float:
        """Relative change: +0.5 is half as much error again."""
        return self.mean / self.before - 1 if self.before > 0 else self.mean


class Detector(Protocol):
    """One site's detector."""

    def update(self, value: float) -> Alarm | None:
        """Take the next number; say so if the mean has changed."""


def dated(values: Sequence[float], least: int = 6) -> Alarm:
    """When the mean of `values` changed most likely, knowing that it did, and what it is since (at least `least` steps ago).

    The split that maximises the difference of the two means over its standard error (the CUSUM statistic: Page 1955, Hinkley
    1970). A detector's own estimate lags: its window still holds values from before.
    """
    x = np.asarray(values, dtype=np.float64)
    count = len(x)
    if count < 2 * least:
        raise ValueError(f"a change among {count} values cannot be dated; {2 * least} are needed")
    split = np.arange(least, count - least + 1)
    before = np.cumsum(x)[split - 1]
    score = np.abs(before - split * x.mean()) / np.sqrt(split * (count - split))
    begin = int(split[np.argmax(score)])
    return Alarm(float(x[begin:].mean()), float(x[:begin].mean()), count - begin)


def make(name: str, options: dict[str, Any]) -> Detector:
    """A detector of the family.

    Raises:
        UnknownName: there is none of that name.
        ParamsError: an option it does not know, or a value out of range.
    """
    module = member("cellwright.lifecycle.drift", name, what="drift detector")
    try:
        chosen = module.Options.model_validate(options)
    except ValueError as error:
        raise ParamsError(f"monitor.detector_options of {name}: {error}") from None
    found: Detector = module.Detector(chosen)
    return found
