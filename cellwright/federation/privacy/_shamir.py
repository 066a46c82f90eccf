"""Shamir's secret sharing over the field of integers modulo 2^521 − 1 (Shamir, How to share a secret, CACM 1979)."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache

from cellwright.errors import FederationError

PRIME = 2**521 - 1  # a Mersenne prime, above every secret of 256 bits
SECRET_BYTES, SHARE_BYTES = 32, 66


def split(secret: bytes, threshold: int, points: Iterable[int]) -> dict[int, bytes]:
    """A share for every point (distinct, from 1): any `threshold` of them give the secret, fewer say nothing of it."""
    if len(secret) != SECRET_BYTES or threshold < 1:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes and a threshold of at least 1, not {len(secret)} and {threshold}")
    coefficients = [int.from_bytes(secret), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {point: _at(coefficients, point).to_bytes(SHARE_BYTES) for point in points}


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from shares by point, at least as many as the threshold.

    Raises:
        FederationError: they are not shares of one secret.
    """
    points = tuple(sorted(shares))
    values = (int.from_bytes(shares[p]) for p in points)
    secret = sum(w * v for w, v in zip(_at_zero(points), values, strict=True)) % PRIME
    if secret >> 8 * SECRET_BYTES:
        raise FederationError("the shares that came are not of one secret: an owner sent a wrong one, or they are too few")
    return secret.to_bytes(SECRET_BYTES)


def _at(coefficients: list[int], point: int) -> int:
    """The polynomial at a point, by Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


@lru_cache(maxsize=64)
def _at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights for the value at 0."""
    weights = []
    for mine in points:
        above = below = 1
        for other in points:
            if other != mine:
                above, below = above * other % PRIME, below * (other - mine) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
