"""Robustness against an outage: MAE with the newest `scorecard.outage_h` blotted out / MAE without - 1. 0: unharmed.

Of four outages the worst counts: the forecast site's telemetry, or its neighbours', reads 0, or is missing. A network of single
sites has no neighbours; one of all sites at once loses them all. What collects telemetry has failed, not the network: the truth
stays as it was.
"""

from cellwright.kpis._probes import Probes, growth

title = "Outage"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "robustness"
plain = "growth of MAE when the newest telemetry of the site, or of its neighbours, is lost or reads 0"


def compute(evidence: Probes) -> float | None:
    """None where it was not probed."""
    return growth(evidence.outage_mae, evidence.mae)
