"""What is known of this machine's power without measuring it: CodeCarbon's tables, read once and offline.

The figures are handed to child processes in the environment (`CELLWRIGHT_POWER`), since finding them costs seconds.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import psutil

from cellwright.errors import ParamsError

_HANDED_DOWN = "CELLWRIGHT_POWER"
_GIB = 1024**3
_lock = threading.Lock()


@dataclass(frozen=True)
class PowerProfile:
    """Power of this machine's parts as CodeCarbon models them."""

    cpu_w_per_core: float  # of one busy logical core
    cpu_words: str  # where that figure is from
    ram_w: float  # of all memory modules
    ram_bytes: int


def profile() -> PowerProfile:
    """The machine's profile: found once a process tree, about 1 s the first time."""
    with _lock:
        handed = os.environ.get(_HANDED_DOWN)
        found = PowerProfile(**json.loads(handed)) if handed else _look_up()
        os.environ[_HANDED_DOWN] = json.dumps(asdict(found))
        return found


def quiet_codecarbon() -> None:
    """Keep CodeCarbon's log off the terminal. It sets its own level on import, so this imports it first."""
    import codecarbon.external.logger  # noqa: F401  (the import is what sets the level)

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL + 1)


@cache
def co2_g_per_kwh(country: str) -> float:
    """Carbon intensity of a country's electricity, from the table inside CodeCarbon; nothing is asked of the network.

    Raises:
        ParamsError: the table has no such country (CodeCarbon itself would fall back to the world's average).
    """
    quiet_codecarbon()
    from codecarbon.core.emissions import Emissions

    table = json.loads((files("codecarbon") / "data/private_infra/global_energy_mix.json").read_text())
    if country not in table:
        near = ", ".join(sorted(c for c in table if c.startswith(country[:1].upper()))[:12])
        raise ParamsError(
            f"energy.country: CodeCarbon's table has no country '{country}'; use an ISO 3166 alpha-3 code (there are {near} …)"
        )
    return float(Emissions._global_energy_mix_to_emissions_rate(table[country]).kgs_per_kWh) * 1000


def _look_up() -> PowerProfile:
    quiet_codecarbon()
    from codecarbon.external.ram import RAM

    watts, words = _cpu_w_per_core(cpu_model(), virtual=is_virtual())
    ram_w = float(RAM(tracking_mode="machine").total_power().W)
    return PowerProfile(watts, words, ram_w, psutil.virtual_memory().total)


def _cpu_w_per_core(model: str, *, virtual: bool) -> tuple[float, str]:
    """Watts of one busy logical core, and the words for it.

    CodeCarbon lists the thermal design power (TDP) of whole chips. It is shared out over the logical cores of this machine;
    a virtual machine sees only some of a chip's cores, so there CodeCarbon's figure for a thread of an unlisted CPU is used.
    """
    from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE, TDP
    from codecarbon.core.util import count_physical_cpus

    if virtual:
        return float(DEFAULT_POWER_PER_CORE), f"{DEFAULT_POWER_PER_CORE} W a busy core (CodeCarbon's default; virtual machine)"
    listed = TDP.__new__(TDP)._get_cpu_power_from_registry(model) if model else None  # its constructor spends 1 s on the name
    if listed is None:
        return float(DEFAULT_POWER_PER_CORE), f"{DEFAULT_POWER_PER_CORE} W a busy core (CodeCarbon's default; unlisted CPU)"
    cores = psutil.cpu_count() or 1
    watts = listed * count_physical_cpus() / cores
    return watts, f"{watts:.1f} W a busy core (TDP {listed:g} W of {model}, over {cores} cores)"


def cpu_model() -> str:
    """Name of the CPU, "" where the system does not tell."""
    return _cpuinfo("model name")


def is_virtual() -> bool:
    """Whether this is a virtual machine: the CPU then says so in its flags."""
    return "hypervisor" in _cpuinfo("flags").split()


@cache
def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition("\t")[0].strip(" :") == key), "")
