"""Secure aggregation: the coordinator learns the sum of the owners' vectors and no vector, whoever drops out on the way.

After Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning, CCS 2017. Every two owners agree on a
mask that one adds and the other takes off; each adds a mask of its own besides. Seeds are shared (Shamir) among all owners, so that
those who stay can take the masks of those who left out of the sum. Of one owner they give out either its own mask (its vector came)
or its pairwise masks' key (it did not), never both.

    advertise   two public keys an owner; signed, where the owner has a signing key
    share       shares of both secrets for every other owner, in envelopes
    deal        the envelopes are handed on; from here on the owners know whose masks are in the sum
    (update)    the masked vector, integers modulo 2^64
    unmask      shares of what must be taken out

Values lie on a grid of 2^−fraction_bits up to ±range, and the sum of all owners fits into 63 bits, or the round does not begin:
the sum is that of the owners' rounded vectors, exactly. Keys and masks are new in every round and come from the operating system's
entropy; they cancel, so that the same updates give the same model.

Cost (python benchmarks/privacy.py --only secure_aggregation): 50 owners and 30,000 values: 256 kB up an owner instead
of 121, 18 kB down, 15 ms an owner; 9 ms at the coordinator, 64 ms where a fifth of the owners are lost.
"""

from __future__ import annotations

import math

from cellwright.federation.privacy import _contract
from cellwright.federation.privacy._contract import dataclass, option
from cellwright.federation.privacy._fixed_point import Grid
from cellwright.federation.privacy._masked_coordinator import Coordinator
from cellwright.federation.privacy._masked_owner import Owner


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of secure aggregation."""

    threshold: float = option(2 / 3, "share of the owners that must stay to the end; above 1/2", low=0.05, high=1.0)
    least: int = option(2, "fewest owners in a sum", low=2)
    range: float = option(2.0**24, "largest value of a vector, either sign", low=1e-6)
    fraction_bits: int = option(28, "values are multiples of 2^-fraction_bits", low=1, high=52)

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.ldexp(self.range, self.fraction_bits) > 2**52:
            raise ValueError(f"range {self.range:g} in steps of 2^-{self.fraction_bits} is finer than float64; lower one of them")

    @property
    def grid(self) -> Grid:
        """The values that can be sealed."""
        return Grid(self.range, self.fraction_bits)

    @property
    def settings(self) -> bytes:
        """What both sides must have set alike."""
        return f"{self.threshold!r} {self.least} {self.range!r} {self.fraction_bits}".encode()


class Mechanism(_contract.Mechanism):
    """Pairwise masks with Shamir recovery."""

    title = "Secure aggregation"
    paper = "Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning, CCS 2017, doi:10.1145/3133956.3133982"
    threat = (
        "A coordinator, alone or together with fewer than the threshold of the owners, that keeps to the protocol; with a threshold "
        "above 1/2 and signed keys, also one that asks owners differently: it learns the sum and no owner's vector."
    )
    leaves = (
        "The sum itself, round after round (add local_dp or central_dp), and what is sent beside the vector; an owner can still spoil "
        "the sum, since nobody sees its update: robust rules and norm checks do not work on it."
    )
    seals = True
    before = ("advertise", "share", "deal")
    after = ("unmask",)

    def owner_side(self, owner: str, seed: int) -> Owner:
        """`seed` is not used: keys come from entropy."""
        return Owner(owner, self.options)

    def coordinator_side(self, owners: tuple[str, ...], seed: int) -> Coordinator:
        """`seed` is not used: nothing depends on chance.

        Raises:
            FederationError: the sum of so many owners could overflow.
        """
        return Coordinator(owners, self.options)
