"""Hardware counters of energy: RAPL for the CPU package (read by CodeCarbon), NVML for NVIDIA GPUs.

Each counts joules since it was opened, for the whole machine or GPU, whoever used it.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Self

from cellwright.energy.profile import quiet_codecarbon

RAPL_FOLDER = Path("/sys/class/powercap/intel-rapl/subsystem")
_WRAP_GUARD_S = 60.0  # a package's 32-bit counter wraps after some 14 min at 300 W: it is read at least this often


class Rapl:
    """Running Average Power Limit: the energy counters of Intel and AMD CPU packages.

    Source: Intel SDM vol. 3B, 15.10; Linux powercap. CodeCarbon finds the domains, drops mirrored ones and handles wrap-around.
    """

    def __init__(self, reader: Any) -> None:
        self._reader, self._total_j = reader, 0.0
        self._lock, self._closed = threading.Lock(), threading.Event()
        reader.start()
        threading.Thread(target=self._guard, name="rapl-wrap-guard", daemon=True).start()

    @classmethod
    def open(cls, folder: Path = RAPL_FOLDER) -> Self | None:
        """A running counter, or None where the machine has none that may be read."""
        if not folder.exists():
            return None
        quiet_codecarbon()
        from codecarbon.core.cpu import IntelRAPL, is_rapl_available

        return cls(IntelRAPL(rapl_dir=str(folder))) if is_rapl_available(str(folder)) else None

    def joules(self) -> float:
        """Joules of all CPU packages since this was opened."""
        from codecarbon.core.units import Energy, Time

        with self._lock:
            details = self._reader.get_cpu_details(Time.from_seconds(1.0))  # the duration only serves its power figures
            kwh = sum(value for name, value in details.items() if "Energy Delta" in name)
            self._total_j += kwh / Energy.JOULES_TO_KWH
            return self._total_j

    def close(self) -> None:
        """Stop guarding against wrap-around."""
        self._closed.set()

    def _guard(self) -> None:
        while not self._closed.wait(_WRAP_GUARD_S):
            self.joules()


class Nvml:
    """NVIDIA Management Library: total energy of each visible GPU (Volta and later), in millijoules."""

    def __init__(self, nvml: Any, handles: list[Any]) -> None:
        self._nvml, self.handles = nvml, handles
        self._start_mj = self._read_mj()

    @classmethod
    def open(cls) -> Self | None:
        """A running counter over the GPUs this process may use, or None where there is no GPU that counts energy."""
        import pynvml

        try:
            pynvml.nvmlInit()
            handles = _visible(pynvml)
            if handles:
                return cls(pynvml, handles)
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:  # no driver, or a GPU older than Volta: `sources` tells which
            return None
        return None

    def joules(self) -> float:
        """Joules of the visible GPUs since this was opened."""
        return (self._read_mj() - self._start_mj) / 1000

    def busy(self) -> bool:
        """Whether any visible GPU works right now."""
        return any(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu > 5 for handle in self.handles)

    def close(self) -> None:
        """Let go of NVML."""
        self._nvml.nvmlShutdown()

    def _read_mj(self) -> int:
        return sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self.handles)


def _visible(nvml: Any) -> list[Any]:
    """Handles of the GPUs that CUDA_VISIBLE_DEVICES leaves to this process (indices or UUIDs; unset: all)."""
    count = nvml.nvmlDeviceGetCount()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
    names = [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return [nvml.nvmlDeviceGetHandleByIndex(int(n)) if n.isdigit() else nvml.nvmlDeviceGetHandleByUUID(n) for n in names]
