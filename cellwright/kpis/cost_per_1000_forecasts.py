"""Price of 1,000 site forecasts through ONNX Runtime in batches: CPU-hours · `cpu_core_hour` + energy · `energy_per_kwh`."""

from cellwright.kpis._contract import Costs

title = "Cost / 1,000 forecasts"
unit = "money"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where throughput was not timed, or energy is not known and has a price."""
    prices, reading, count = evidence.prices, evidence.forecast_energy, evidence.forecasts_metered
    if reading is None or not count or (reading.energy_j is None and prices.energy_per_kwh):
        return None
    each = reading.cpu_s / 3600 * prices.cpu_core_hour + (reading.energy_j or 0.0) / 3.6e6 * prices.energy_per_kwh
    return each / count * 1000
