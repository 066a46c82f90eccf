"""Energy of training: CPU, RAM and GPU together, idle baseline subtracted. The score's sources tell measured from modelled.

Finalists whose reading was taken while others trained are measured again, serially, on a share of their epochs, and scaled.
"""

from cellwright.kpis._contract import Costs

title = "Training energy"
unit = "J"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where no part has a meter or a model."""
    return None if evidence.train_energy is None else evidence.train_energy.energy_j
