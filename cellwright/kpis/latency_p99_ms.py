"""Percentile 99 of the time of one forecast in PyTorch: one call, batch 1, on the CPU, input ready in memory.

One call forecasts one site; with `inputs: all`, every site at once.
"""

from cellwright.kpis._contract import Costs, percentile_ms

title = "Latency p99"
unit = "ms"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where it was not timed."""
    return percentile_ms(evidence.torch, 99)
