"""Return: what a site saves a day if its capacity follows the forecast instead of its peak, net of the price of forecasting.

    saving = (static - provided) · 24 h · prices.capacity_per_unit_h - forecasts a day · price of a forecast

static: percentile 99.5 of each site's load in the training rows, kept ready at all times. provided: forecast + margin · static, for each
step ahead; the margin is the smallest with which at most `prices.violation_share` of the validation span's intervals have a load
above it. Both are means over the test span's intervals and sites, of the first target. One forecast a step. Below 0:
forecasting costs more than it saves. The trade of over-provisioning against violations is that of Bega et al., "DeepCog: cognitive
network management in sliced 5G networks with deep learning", INFOCOM 2019.
"""

from cellwright.kpis._probes import Probes

title = "Return / site and day"
unit = "money"
lower_is_better = False
span = "probe"
ideal = float("inf")
group = "cost and return"
plain = "saved a site and day if capacity follows the forecast instead of the site's peak, less the price of forecasting"


def compute(evidence: Probes) -> float | None:
    """None where a part is not known."""
    e = evidence
    if e.static_capacity is None or e.forecast_capacity is None or e.capacity_price_h is None:
        return None
    if e.forecasts_per_day is None or e.forecast_price is None:
        return None
    return (e.static_capacity - e.forecast_capacity) * 24 * e.capacity_price_h - e.forecasts_per_day * e.forecast_price
