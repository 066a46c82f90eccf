"""Size of the fp32 ONNX file, scalers inside: what a device downloads."""

from cellwright.kpis._contract import Costs

title = "Bundle"
unit = "B"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where it is not known."""
    return None if evidence.bundle_bytes is None else float(evidence.bundle_bytes)
