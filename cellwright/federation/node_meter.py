"""What answering one message costs a node: seconds, CPU-seconds, energy and carbon (M.3387 8.4.2).

A message takes milliseconds, less than any counter's step, so its energy is modelled: CPU-seconds × watts of a busy core, which are
found once a process (energy/profile.py). The memory's share, which does not depend on the message, is left out. Without
`OwnerKit.energy` it is not known, and is None.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import lru_cache

from cellwright.federation.contract import Usage
from cellwright.params import Energy

J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Mark:
    """A moment; what was used since is `NodeMeter.usage`."""

    at_s: float
    cpu_s: float
    whole: bool  # CPU-seconds of the process, else of this thread


class NodeMeter:
    """Counts by the clocks of the process: a few microseconds a message."""

    def __init__(self, energy: Energy | None) -> None:
        self._energy = energy

    def mark(self) -> Mark:
        """Now. The first one in a process that models energy finds its power before, which takes about a second."""
        if self._energy is not None:
            power(self._energy)
        whole = threading.current_thread() is threading.main_thread()  # as training/loop.py counts
        return Mark(time.monotonic(), _cpu_s(whole), whole)

    def usage(self, since: Mark) -> Usage:
        """What was used since."""
        seconds, cpu_s = time.monotonic() - since.at_s, _cpu_s(since.whole) - since.cpu_s
        if self._energy is None:
            return Usage(seconds, cpu_s, None, None)
        watts, carbon = power(self._energy)
        joules = cpu_s * watts
        return Usage(seconds, cpu_s, joules, "modelled", joules / J_PER_KWH * carbon)


def _cpu_s(whole: bool) -> float:
    return time.process_time() if whole else time.thread_time()


@lru_cache(maxsize=8)
def power(energy: Energy) -> tuple[float, float]:
    """Watts of a busy core, and grams of CO2 a kWh."""
    from cellwright.energy.profile import co2_g_per_kwh, profile

    return energy.cpu_w_per_core or profile().cpu_w_per_core, co2_g_per_kwh(energy.country)
