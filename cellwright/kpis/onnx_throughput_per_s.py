"""Site forecasts a second in ONNX Runtime, in batches of `score.batch`: a site forecast is the whole horizon of one site.

A call with `inputs: all` makes one for each site, so that models of all kinds compare.
"""

from cellwright.kpis._contract import Costs

title = "Throughput (ONNX)"
unit = "forecasts/s"
lower_is_better = False
span = "cost"
ideal = float("inf")


def compute(evidence: Costs) -> float | None:
    """None where it was not timed."""
    return None if evidence.onnx is None else evidence.onnx.throughput_per_s
