"""Hierarchical: edges average their owners, the cloud averages the edges (M.3387 Appendix I: secondary and primary aggregation).

    region r: w_r <- sum of (n_i / n_r) w_i over its owners;   cloud: w <- sum of (n_r / n) w_r

Liu et al., Client-edge-cloud hierarchical federated learning, IEEE ICC 2020. An update may come from an owner, or already from an edge,
under the edge's name, with its region's windows. Regions count by windows, which makes one round of it FedAvg, or alike, so that a
small region is heard as loudly as a large one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.aggregation import _contract
from cellwright.federation.aggregation._contract import by_examples, dataclass, option
from cellwright.federation.aggregation._sums import moved
from cellwright.federation.contract import Arrays, Update


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of hierarchical aggregation."""

    regions_alike: bool = option(False, "whether regions count alike, whatever their windows", choices=(True, False))


class Rule(_contract.Rule):
    """Regional means, then their mean."""

    title = "Hierarchical FedAvg"
    paper = "Liu et al., Client-edge-cloud hierarchical federated learning, IEEE ICC 2020"
    regional = True

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._region: dict[str, str] = {}  # by owner; an edge is its own

    def place(self, regions: Mapping[str, Sequence[str]]) -> None:
        """The topology's regions: edge -> owners."""
        self._region = {owner: edge for edge, owners in regions.items() for owner in (*owners, edge)}

    def weights(self, updates: Sequence[Update]) -> np.ndarray:
        """Share of each: of its region within all, times its own within the region."""
        shares = by_examples(updates)
        if not self.options.regions_alike:
            return shares
        regions = np.array([self._of(u.owner) for u in updates])
        names = sorted({r for r, share in zip(regions, shares, strict=True) if share > 0})
        for name in names:
            shares[regions == name] /= shares[regions == name].sum() * len(names)
        return shares

    def aggregate(self, current: Arrays, updates: Sequence[Update]) -> Arrays:
        self.checked(updates)
        if not self._region:
            raise FederationError("hierarchical aggregation needs regions; set federation.topology to 'hierarchy'")
        return moved(current, updates, self.weights(updates))

    def _of(self, owner: str) -> str:
        """The region of an owner.

        Raises:
            FederationError: it lies in none.
        """
        if owner not in self._region:
            raise FederationError(
                f"'{owner}' lies in no region of the topology ({', '.join(sorted(set(self._region.values())))}); regions can count alike "
                "only where each update's is known"
            )
        return self._region[owner]
