"""Fitters: what a network that names one is fitted by, where torch alone cannot.

Each file has fit(network, batches, *, seed, budget_s=None) -> Ended: about `budget_s` seconds may go by; None: as many as it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ending = Literal["converged", "budget", "max_epochs", "closed form"]


@dataclass(frozen=True)
class Ended:
    """What ended a fit, and why in a sentence."""

    status: Ending
    reason: str
