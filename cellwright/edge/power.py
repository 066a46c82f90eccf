"""Energy of this process since it started: CPU-seconds × watts of a busy core (modelled; see cellwright/energy/meter.py).

What a core draws is looked up in a process of its own, as the tables come with libraries that a small server need not hold.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass

log = logging.getLogger(__name__)
_LOOK_UP = "import json; from cellwright.energy.profile import profile; print(json.dumps(profile().cpu_w_per_core))"
_LOOK_UP_S = 60.0


@dataclass(frozen=True)
class Power:
    """Of this machine."""

    cpu_w_per_core: float

    def energy_j(self) -> float:
        """Joules that this process has used."""
        times = os.times()
        return (times.user + times.system) * self.cpu_w_per_core


def look_up() -> Power | None:
    """What a core draws; None where it cannot be told, and then no energy is reported."""
    try:
        done = subprocess.run([sys.executable, "-c", _LOOK_UP], capture_output=True, text=True, timeout=_LOOK_UP_S, check=True)
        return Power(float(json.loads(done.stdout)))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning("no energy is reported: what a core draws cannot be told (%s)", error)
        return None
