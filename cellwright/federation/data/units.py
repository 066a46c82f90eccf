"""Every unit of telemetry that owners report in, and its conversion into another of the same quantity (M.3387 10.3).

A unit is (quantity, factor, offset): value in the quantity's base unit = value · factor + offset. Decimal prefixes are powers of 1000;
KiB, MiB and GiB of 1024. What is not in the table is converted into nothing but itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellwright.errors import FederationError

_ADDS_UP = {"volume", "energy", "count"}  # over a longer interval: the sum of its parts, not their mean

_UNITS: dict[str, tuple[str, float, float]] = {
    # data rate: bit/s
    "bit/s": ("rate", 1, 0), "kbit/s": ("rate", 1e3, 0), "Mbit/s": ("rate", 1e6, 0), "Gbit/s": ("rate", 1e9, 0),
    "B/s": ("rate", 8, 0), "kB/s": ("rate", 8e3, 0), "MB/s": ("rate", 8e6, 0), "GB/s": ("rate", 8e9, 0),
    # data volume: byte
    "B": ("volume", 1, 0), "kB": ("volume", 1e3, 0), "MB": ("volume", 1e6, 0), "GB": ("volume", 1e9, 0), "TB": ("volume", 1e12, 0),
    "KiB": ("volume", 2**10, 0), "MiB": ("volume", 2**20, 0), "GiB": ("volume", 2**30, 0),
    "bit": ("volume", 1 / 8, 0), "kbit": ("volume", 1e3 / 8, 0), "Mbit": ("volume", 1e6 / 8, 0), "Gbit": ("volume", 1e9 / 8, 0),
    # energy: joule; power: watt
    "J": ("energy", 1, 0), "kJ": ("energy", 1e3, 0), "Wh": ("energy", 3600, 0), "kWh": ("energy", 3.6e6, 0),
    "mW": ("power", 1e-3, 0), "W": ("power", 1, 0), "kW": ("power", 1e3, 0),
    # time: second; frequency: hertz; length: metre; temperature: kelvin
    "us": ("time", 1e-6, 0), "ms": ("time", 1e-3, 0), "s": ("time", 1, 0), "min": ("time", 60, 0), "h": ("time", 3600, 0),
    "Hz": ("frequency", 1, 0), "kHz": ("frequency", 1e3, 0), "MHz": ("frequency", 1e6, 0), "GHz": ("frequency", 1e9, 0),
    "m": ("length", 1, 0), "km": ("length", 1e3, 0),
    "K": ("temperature", 1, 0), "°C": ("temperature", 1, 273.15), "°F": ("temperature", 5 / 9, 459.67 * 5 / 9),
    # speed: metre a second; acceleration: metre a second squared
    "m/s": ("speed", 1, 0), "km/h": ("speed", 1 / 3.6, 0), "mph": ("speed", 0.44704, 0),
    "m/s²": ("acceleration", 1, 0), "cm/s²": ("acceleration", 1e-2, 0),
    # a share of one; things counted in an interval
    "1": ("share", 1, 0), "%": ("share", 1e-2, 0), "‰": ("share", 1e-3, 0), "ppm": ("share", 1e-6, 0),
    "count": ("count", 1, 0), "thousand": ("count", 1e3, 0), "million": ("count", 1e6, 0),
}  # fmt: skip
_ALSO = {
    "bps": "bit/s", "kbps": "kbit/s", "Mbps": "Mbit/s", "Gbps": "Gbit/s", "Kbps": "kbit/s", "kb/s": "kbit/s", "Mb/s": "Mbit/s",
    "byte": "B", "bytes": "B", "KB": "kB", "C": "°C", "degC": "°C", "F": "°F", "percent": "%", "share": "1", "ratio": "1", "µs": "us",
    "sec": "s", "watt": "W", "calls": "count", "events": "count", "packets": "count", "messages": "count",
}  # fmt: skip


@dataclass(frozen=True)
class Conversion:
    """value in the target unit = value · factor + offset."""

    factor: float
    offset: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Converted in float64, returned as float32; NaN stays NaN."""
        return (values.astype(np.float64) * self.factor + self.offset).astype(np.float32)

    def one(self, value: float) -> float:
        """One value."""
        return value * self.factor + self.offset


def conversion(*, source: str, target: str) -> Conversion:
    """From one unit to another of the same quantity.

    Raises:
        FederationError: they measure different quantities, or one of them is unknown.
    """
    if source == target:
        return Conversion(1.0, 0.0)
    one, other = _known(source), _known(target)
    if one is None or other is None:
        unknown = source if one is None else target
        raise FederationError(
            f"unit '{unknown[:40]}' is not known, so {source[:40]} cannot become {target[:40]}; see data/units.py"
        )
    if one[0] != other[0]:
        raise FederationError(f"{source} is a unit of {one[0]}, {target} of {other[0]}: no conversion")
    return Conversion(one[1] / other[1], (one[2] - other[2]) / other[1])


def adds_up(unit: str) -> bool:
    """Whether a longer interval's value is the sum of its parts' (a volume), not their mean (a rate, a share)."""
    known = _known(unit)
    return known is not None and known[0] in _ADDS_UP


def _known(unit: str) -> tuple[str, float, float] | None:
    return _UNITS.get(_ALSO.get(unit, unit))
