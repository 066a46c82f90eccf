"""What a budget of differential privacy is spent on: events of the Gaussian mechanism, composed by Rényi differential privacy.

The arithmetic is dp-accounting's (Mironov 2017; Mironov, Talwar and Zhang 2019 for Poisson-sampled events).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.privacy._contract import Mechanism, Participation, Spent

# Rényi orders: dp-accounting's own from 2 on. Those below are best only where ε is far above any budget, and their series for sampled
# events may not converge. The least ε over fewer orders is an upper bound all the same.
_ORDERS = (*(2 + tenth / 10 for tenth in range(90)), *range(11, 64), 128, 256, 512, 1024)


@dataclass(frozen=True)
class Event:
    """So many releases with Gaussian noise, each of a sample that every unit enters on its own with probability `rate`."""

    noise_multiplier: float  # standard deviation of the noise over the sensitivity of what it hides
    rate: float = 1.0
    count: int = 1


@dataclass(frozen=True)
class Ledger:
    """Everything released so far; like events are counted together."""

    events: tuple[Event, ...] = ()

    def plus(self, event: Event) -> Ledger:
        """The ledger with one more entry."""
        for i, known in enumerate(self.events):
            if (known.noise_multiplier, known.rate) == (event.noise_multiplier, event.rate):
                more = replace(known, count=known.count + event.count)
                return Ledger((*self.events[:i], more, *self.events[i + 1 :]))
        return Ledger((*self.events, event))

    def epsilon(self, delta: float) -> float:
        """ε spent at this δ."""
        from dp_accounting.rdp import compute_epsilon

        if not self.events:
            return 0.0
        total = sum(e.count * _curve(e.noise_multiplier, e.rate) for e in self.events)
        return float(compute_epsilon(_ORDERS, total, delta)[0])


@cache
def _curve(noise_multiplier: float, rate: float) -> np.ndarray:
    """Rényi divergence of one event at each of the accountant's orders."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    gaussian = GaussianDpEvent(noise_multiplier)
    event = gaussian if rate >= 1 else PoissonSampledDpEvent(rate, gaussian)
    curve: np.ndarray = RdpAccountant(_ORDERS).compose(event).rdp
    return curve


class Counted(Mechanism):
    """A mechanism with a budget: options `epsilon` and `delta`."""

    unit: ClassVar[str]  # whose data ε speaks of

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._ledger = Ledger()
        self._last: Event | None = None

    @abstractmethod
    def event(self, done: Participation) -> Event:
        """What one round releases of the unit that is most exposed."""

    def first(self) -> Event | None:
        """What the first round will release, where that is known before it."""
        return None

    def account(self, done: Participation) -> None:
        self._last = self.event(done)
        self._ledger = self._ledger.plus(self._last)

    def account_again(self, done: Participation) -> None:
        """Two draws of noise on one update tell more than one; from a seed they are the same draw."""
        if not getattr(self.options, "seeded_noise", False):
            self.account(done)

    @property
    def spent(self) -> Spent:
        """ε spent at the option's δ; 0 before the first round."""
        return Spent(epsilon=self._ledger.epsilon(self.options.delta), delta=self.options.delta, unit=self.stated_unit)

    @property
    def stated_unit(self) -> str:
        """`unit`, with what voids the statement."""
        seeded = getattr(self.options, "seeded_noise", False)
        return f"{self.unit}; noise from a seed: holds only against those who do not know it" if seeded else self.unit

    @property
    def exhausted(self) -> bool:
        """Whether another round like the last would go over `epsilon`; before the first, only where its cost is known."""
        event = self._last or self.first()
        return event is not None and not self._allows(event)

    def fits(self, planned: Participation) -> bool:
        return self._allows(self.event(planned))

    def _allows(self, event: Event) -> bool:
        return self._ledger.plus(event).epsilon(self.options.delta) <= float(self.options.epsilon)

    def state(self) -> bytes:
        """The ledger and the last entry, as JSON."""
        entries = [_listed(e) for e in self._ledger.events]
        return json.dumps({"events": entries, "last": _listed(self._last) if self._last else None}).encode()

    def restore(self, state: bytes) -> None:
        """Take the ledger back.

        Raises:
            FederationError: it is of another form; a budget is never counted anew in silence.
        """
        try:
            kept = json.loads(state)
            self._ledger = Ledger(tuple(_event(e) for e in kept["events"]))
            self._last = _event(kept["last"]) if kept["last"] else None
        except (KeyError, TypeError, ValueError) as error:
            raise FederationError(f"the checkpoint's privacy ledger cannot be read ({error}); start the request anew") from None


def _listed(event: Event) -> list[float | int]:
    return [event.noise_multiplier, event.rate, event.count]


def _event(listed: list[float | int]) -> Event:
    noise_multiplier, rate, count = listed
    event = Event(float(noise_multiplier), float(rate), int(count))
    if not (event.noise_multiplier > 0 and 0 < event.rate <= 1 and event.count > 0):
        raise ValueError(f"{listed} is no event")
    return event
