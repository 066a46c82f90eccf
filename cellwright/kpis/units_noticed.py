"""Share of the network's measured features whose change of unit the step `validate` would refuse. 1: no such data come through.

A feature multiplied by `scorecard.unit_factor` is refused where a value of it leaves the physical bounds of the catalogue, or its
median moves by more than `validate.max_shift` interquartile ranges: new rows are those of the test span, the accepted ones those of
training. It is the guard of the house, not of the network: of finalists that see the same features it says the same.
"""

from cellwright.kpis._probes import Probes

title = "Change of unit noticed"
unit = "1"
lower_is_better = False
span = "probe"
ideal = 1.0
group = "robustness"
plain = "share of its features whose change of unit the data checks refuse before a forecast is made"


def compute(evidence: Probes) -> float | None:
    """None where it was not probed."""
    return evidence.units_noticed
