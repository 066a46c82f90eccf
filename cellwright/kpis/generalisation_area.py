"""Generalisation to another area: MAE on half of the sites of a network trained on the other half / of one trained on all - 1.

On a grid the halves are its left and its right columns, else the first and the second sites. Both networks train at equal budget and
forecast the same half, each of whose sites has a scaler of its own training rows: what is asked is whether the weights carry over,
which needs a network of single sites or of patches. 0: as good as if it had been trained there. Spatial hold-out after Roberts et
al., "Cross-validation strategies for data with temporal, spatial, hierarchical, or phylogenetic structure", Ecography 40 (2017).
"""

from cellwright.kpis._probes import Probes, growth

title = "Another area"
unit = "1"
lower_is_better = True
span = "probe"
ideal = 0.0
group = "generalisation"
plain = "growth of MAE on sites that were not trained on, against a training that saw them"


def compute(evidence: Probes) -> float | None:
    """None where it was not probed, or the network sees all sites at once."""
    return growth(evidence.area_mae, evidence.area_whole_mae)
