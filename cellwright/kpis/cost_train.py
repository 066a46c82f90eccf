"""Price of training: energy · `energy_per_kwh` + CPU-hours · `cpu_core_hour` + GPU-hours · `gpu_hour`, from `prices`.

Without an energy reading its part is left out only if the price of energy is 0; otherwise the cost is not known.
"""

from cellwright.kpis._contract import Costs

title = "Training cost"
unit = "money"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where the CPU-seconds or the energy are not known."""
    prices, reading = evidence.prices, evidence.train_energy
    energy_j = None if reading is None else reading.energy_j
    if evidence.train_cpu_s is None or (energy_j is None and prices.energy_per_kwh):
        return None
    hours = evidence.train_cpu_s / 3600 * prices.cpu_core_hour + (evidence.train_gpu_s or 0.0) / 3600 * prices.gpu_hour
    return hours + (energy_j or 0.0) / 3.6e6 * prices.energy_per_kwh
