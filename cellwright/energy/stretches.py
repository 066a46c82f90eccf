"""Energy of a training that several stretches of work make up: it paused, or it was killed and resumed."""

from __future__ import annotations

from cellwright.results import EnergyReading, Reading, Source

_ORDER: tuple[Source, ...] = ("constant", "modelled", "measured")  # weakest first


def added(before: EnergyReading | None, reading: EnergyReading) -> EnergyReading:
    """Both stretches as one reading; what is not known of one is not known of the whole."""
    if before is None:
        return reading
    return reading.model_copy(
        update={
            "cpu": _sum(before.cpu, reading.cpu),
            "ram": _sum(before.ram, reading.ram),
            "gpu": _sum(before.gpu, reading.gpu),
            "duration_s": before.duration_s + reading.duration_s,
            "cpu_s": before.cpu_s + reading.cpu_s,
            "co2_g": None if before.co2_g is None or reading.co2_g is None else before.co2_g + reading.co2_g,
            "shared": before.shared or reading.shared,
        }
    )


def _sum(a: Reading, b: Reading) -> Reading:
    if a.energy_j is None or b.energy_j is None:
        return Reading(energy_j=None, source=None)
    return Reading(energy_j=a.energy_j + b.energy_j, source=min((s for s in (a.source, b.source) if s), key=_ORDER.index))


def grown(reading: EnergyReading, factor: float, words: str = "") -> EnergyReading:
    """With what was not metered, by an estimate, hence never better than modelled; `words`, if any, are added to the meter's."""

    def part(one: Reading) -> Reading:
        if one.energy_j is None:
            return one
        return Reading(energy_j=one.energy_j * factor, source="modelled" if one.source == "measured" else one.source)

    return reading.model_copy(
        update={
            "cpu": part(reading.cpu),
            "ram": part(reading.ram),
            "gpu": part(reading.gpu),
            "duration_s": reading.duration_s * factor,
            "cpu_s": reading.cpu_s * factor,
            "co2_g": None if reading.co2_g is None else reading.co2_g * factor,
            "meter": f"{reading.meter}; {words}" if words else reading.meter,
        }
    )
