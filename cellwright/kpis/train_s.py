"""Training time by the clock, of the run that made the candidate."""

from cellwright.kpis._contract import Costs

title = "Training time"
unit = "s"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where it is not known."""
    return None if evidence.train_s is None else float(evidence.train_s)
