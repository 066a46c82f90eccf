"""What 3GPP asks of a network that hands models over; docs/capacity.md, "Sources", says what was checked against which text."""

from __future__ import annotations

from dataclasses import dataclass

AREA_TRAFFIC_IMT2020_BIT_S_KM2 = 10e12  # Report ITU-R M.2410 (2017): 10 Mbit/s per m², indoor hotspot, downlink


@dataclass(frozen=True)
class Density:
    """Every device of a km² takes one model in the deadline, and nothing is spared."""

    devices_per_km2: float
    size_bytes: float
    deadline_s: float

    @property
    def bit_s_km2(self) -> float:
        """density × size × 8 / deadline."""
        return self.devices_per_km2 * self.size_bytes * 8 / self.deadline_s


@dataclass(frozen=True)
class Download:
    """One row of TS 22.261, clause 7.10 (model downloading): one device takes a model in the deadline, at the rate that it gives."""

    size_bytes: float
    models: int  # the table's number of models; the rate is that of one of them
    stated_bit_s: float
    deadline_s: float = 1.0

    @property
    def bit_s(self) -> float:
        """size × 8 / deadline."""
        return self.size_bytes * 8 / self.deadline_s


DENSITIES = tuple(Density(density, size, 1.0) for size in (3.2e6, 536e6) for density in (5_000.0, 10_000.0))
DOWNLOADS = (
    Download(138e6, 1, 1.1e9),
    Download(80e6, 1, 640e6),
    Download(64e6, 50, 512e6),
    Download(2.4e6, 1, 22e6),
)
