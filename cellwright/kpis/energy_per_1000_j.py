"""Energy of 1,000 site forecasts through ONNX Runtime in batches of `score.batch`, idle baseline subtracted."""

from cellwright.kpis._contract import Costs

title = "Energy / 1,000 forecasts"
unit = "J"
lower_is_better = True
span = "cost"
ideal = 0.0


def compute(evidence: Costs) -> float | None:
    """None where no part has a meter or a model."""
    reading = evidence.forecast_energy
    if reading is None or reading.energy_j is None or not evidence.forecasts_metered:
        return None
    return reading.energy_j / evidence.forecasts_metered * 1000
