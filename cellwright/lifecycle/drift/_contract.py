"""What a drift detector is: one file with `title`, `Options` and `Detector`.

A detector watches one site. It is given one number a step, the site's de-seasonalised absolute residual (1 is usual), and says when
its mean has changed. Its state is a function of the numbers it has seen since it was made, so it is restored by replaying them:
nothing needs to be pickled.
"""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from cellwright.errors import ParamsError
from cellwright.families import member


class DetectorOptions(BaseModel):
    """Base of every detector's options: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Detector(Protocol):
    """One site's detector."""

    def update(self, value: float) -> float | None:
        """Take the next number; the new mean if it has changed (1 = as usual, 2 = twice the usual error), else None."""


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
