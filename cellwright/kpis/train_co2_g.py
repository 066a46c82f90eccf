"""Carbon dioxide of training: its energy times the carbon intensity of `energy.country` in CodeCarbon's table (2023)."""

from cellwright.kpis._contract import Costs

title = "Training CO₂"
unit = "g"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where the energy is not known."""
    return None if evidence.train_energy is None else evidence.train_energy.co2_g
