"""Sums that are exact: values on a grid of 2^−bits, added as integers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cellwright.errors import FederationError


@dataclass(frozen=True)
class Grid:
    """Multiples of 2^−bits up to `reach` on both sides of 0. Rounding is to the nearest, ties to even: at most 2^−(bits+1) off."""

    reach: float
    bits: int

    def integers(self, vector: np.ndarray) -> np.ndarray:
        """The vector in units of 2^−bits, int64.

        Raises:
            FederationError: a value is not finite or beyond `reach`; it is never cut in silence.
        """
        largest = float(np.abs(vector).max(initial=0.0))
        if not largest <= self.reach:  # NaN, too
            raise FederationError(
                f"the vector to be sealed reaches {largest:g}, the option `range` allows {self.reach:g}; raise it, or clip updates"
            )
        return np.rint(np.ldexp(np.asarray(vector, np.float64), self.bits)).astype(np.int64)

    def values(self, integers: np.ndarray) -> np.ndarray:
        """Back to float64."""
        return np.ldexp(integers.astype(np.float64), -self.bits)

    def most_owners(self, total_bits: int) -> int:
        """Most owners whose sum cannot reach 2^total_bits in size, whatever they hold."""
        return (2**total_bits - 1) // math.ceil(math.ldexp(self.reach, self.bits))

    def check(self, owners: int, total_bits: int) -> None:
        """Nothing can overflow.

        Raises:
            FederationError: the sum of so many owners could.
        """
        if owners > self.most_owners(total_bits):
            raise FederationError(
                f"the sum over {owners} owners of values up to {self.reach:g} in steps of 2^-{self.bits} could overflow; at most "
                f"{self.most_owners(total_bits)} owners fit. Lower the option `range` or `fraction_bits`"
            )
