"""Which energy meters this machine has, and why not the others: for `cellwright doctor`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cellwright.energy.counters import RAPL_FOLDER, Nvml, Rapl
from cellwright.energy.profile import profile
from cellwright.params import Energy
from cellwright.results import Source


@dataclass(frozen=True)
class EnergySource:
    """One way to know the energy of one part of the machine."""

    part: str  # CPU, RAM, GPU
    name: str
    available: bool
    source: Source | None  # what readings through it are worth; None: there are none
    words: str  # what it is, or why it is not there and what to do


def sources(energy: Energy) -> list[EnergySource]:
    """Every meter and model of the CPU, the RAM and the GPUs, those that cannot be used with the reason."""
    return [_rapl(RAPL_FOLDER), _cpu_model(energy), _ram_model(), _nvml()]


def _rapl(folder: Path) -> EnergySource:
    counter = Rapl.open(folder)
    if counter is not None:
        counter.close()
        return EnergySource("CPU", "RAPL", True, "measured", f"energy counters of the CPU packages in {folder}")
    return EnergySource("CPU", "RAPL", False, None, _why_no_rapl(folder))


def _why_no_rapl(folder: Path) -> str:
    counters = [*folder.parent.glob("**/energy_uj")] if folder.parent.exists() else []
    if counters and not any(os.access(path, os.R_OK) for path in counters):
        return f"counters in {folder.parent} may only be read by root: sudo chmod -R a+r /sys/class/powercap/*"
    return f"no {folder}: a virtual machine or container does not see the CPU's counters; CPU energy is modelled"


def _cpu_model(energy: Energy) -> EnergySource:
    if energy.cpu_w_per_core:
        words = f"CPU-seconds × {energy.cpu_w_per_core:g} W a busy core (energy.cpu_w_per_core)"
    else:
        words = f"CPU-seconds × {profile().cpu_words}; set energy.cpu_w_per_core if you know better"
    return EnergySource("CPU", "model", True, "modelled", words)


def _ram_model() -> EnergySource:
    power = profile()
    words = f"share of {power.ram_bytes / 2**30:.0f} GiB held × {power.ram_w:g} W (CodeCarbon, for all modules) × duration"
    return EnergySource("RAM", "model", True, "modelled", words)


def _nvml() -> EnergySource:
    counter = Nvml.open()
    if counter is None:
        return EnergySource("GPU", "NVML", False, None, _why_no_nvml())
    counter.close()
    return EnergySource("GPU", "NVML", True, "measured", f"energy counters of {len(counter.handles)} GPU")


def _why_no_nvml() -> str:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"no NVIDIA driver to ask ({error}); GPU energy is absent"
    count = pynvml.nvmlDeviceGetCount()
    pynvml.nvmlShutdown()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if count and hidden is not None:
        return f"{count} GPU hidden by CUDA_VISIBLE_DEVICES='{hidden}'; GPU energy is absent"
    return f"{count} GPU, of a generation before Volta that does not count energy; GPU energy is absent"
