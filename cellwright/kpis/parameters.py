"""Numbers that training sets: weights, biases, and the coefficients of closed forms."""

from cellwright.kpis._contract import Costs

title = "Parameters"
unit = "1"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where it is not known."""
    return None if evidence.parameters is None else float(evidence.parameters)
