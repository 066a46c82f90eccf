"""Peak resident memory of a fresh process that loads the ONNX file and answers one batch of `score.batch`."""

from cellwright.kpis._contract import Costs

title = "Peak memory"
unit = "B"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where it is not known."""
    return None if evidence.peak_memory_bytes is None else float(evidence.peak_memory_bytes)
