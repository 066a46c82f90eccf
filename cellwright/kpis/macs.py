"""Multiply-accumulates of one forecast (batch 1): matrix products and convolutions, half of PyTorch's count of FLOPs."""

from cellwright.kpis._contract import Costs

title = "MACs"
unit = "1"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where it is not known."""
    return None if evidence.macs is None else float(evidence.macs)
