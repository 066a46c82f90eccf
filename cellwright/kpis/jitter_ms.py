"""Latency jitter: percentile 99 minus median of the time of one forecast in PyTorch (one call, batch 1, on the CPU).

0: every call takes as long as the usual one. A control loop waits for the slowest of its calls, so it plans with this beside the
median. Both percentiles are those of `latency_p99_ms` and `latency_p50_ms`.
"""

from cellwright.kpis._contract import Costs, percentile_ms

title = "Latency jitter"
unit = "ms"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where it was not timed."""
    slow, usual = percentile_ms(evidence.torch, 99), percentile_ms(evidence.torch, 50)
    return None if slow is None or usual is None else slow - usual
