"""Homomorphic aggregation: owners encrypt their vectors under a key they share, the coordinator adds what it cannot read.

CKKS (Cheon, Kim, Kim and Song, ASIACRYPT 2017) by TenSEAL on Microsoft SEAL: ring dimension 8192, primes of 60, 40 and 60 bits,
which is above 128 bits of security by the table of homomorphicencryption.org (at most 218 bits at that dimension).

    advertise   a public key an owner; signed, where the owner has a signing key
    deal        each of a few dealers makes a CKKS key and puts it into one envelope, with a key to it for every other owner
    accept      the envelope of the first dealer that answered is handed on
    (update)    the encrypted vector
    decrypt     the encrypted sum goes to all owners, who decrypt it; the coordinator takes what most of them say

Values are rounded to a grid of 2^−fraction_bits before encryption, and the decrypted sum is rounded to it again: CKKS's own error
(below an eighth of a step, while sums stay within 2^46 steps) never reaches half a step, so that the sum is exactly that of the owners'
rounded vectors, at most owners · 2^−(fraction_bits+1) off the true one. The same updates give the same model, and the published sum
holds no trace of the key's noise (Li and Micciancio, EUROCRYPT 2021). A sum that lies off the grid is refused, not published.

Cost (python benchmarks/privacy.py --only ckks): 50 owners and 30,000 values: 2.2 MB up an owner instead of 0.12, 2.4 MB
down for the key and the decryption, 61 ms an owner, 0.3 s at the coordinator.
"""

from __future__ import annotations

from cellwright.federation.privacy import _contract
from cellwright.federation.privacy._contract import dataclass, option
from cellwright.federation.privacy._encrypted_coordinator import Coordinator
from cellwright.federation.privacy._encrypted_owner import Owner
from cellwright.federation.privacy._fixed_point import Grid


@dataclass(frozen=True)
class Options(_contract.Options):
    """Options of homomorphic aggregation."""

    least: int = option(2, "fewest owners in a sum", low=2)
    dealers: int = option(3, "owners that make a key at once; the round survives the loss of all but one of them", low=1)
    range: float = option(2.0**18, "largest value of a vector, either sign", low=1e-6, high=2.0**40)
    fraction_bits: int = option(18, "values are multiples of 2^-fraction_bits", low=1, high=30)

    @property
    def grid(self) -> Grid:
        """The values that can be sealed."""
        return Grid(self.range, self.fraction_bits)


class Mechanism(_contract.Mechanism):
    """CKKS with one key among the owners."""

    title = "Homomorphic aggregation (CKKS)"
    paper = "Cheon et al., Homomorphic encryption for arithmetic of approximate numbers, ASIACRYPT 2017, doi:10.1007/978-3-319-70694-8_15"
    threat = (
        "A coordinator, and whoever sees the wire, that keeps to the protocol and works with no owner: it adds ciphertexts and learns "
        "the sum alone."
    )
    leaves = (
        "An owner that works with the coordinator decrypts any other owner's vector, since all owners hold the same key; owners cannot "
        "check that what they decrypt is a sum; the sum itself, and what is sent beside the vector."
    )
    seals = True
    before = ("advertise", "deal", "accept")
    after = ("decrypt",)

    def owner_side(self, owner: str, seed: int) -> Owner:
        """`seed` is not used: keys come from entropy."""
        return Owner(owner, self.options)

    def coordinator_side(self, owners: tuple[str, ...], seed: int) -> Coordinator:
        """`seed`: which owners make keys.

        Raises:
            FederationError: the sum of so many owners could overflow.
        """
        return Coordinator(owners, self.options, seed)
