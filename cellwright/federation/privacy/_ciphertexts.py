"""CKKS vectors of any length as bytes, and back. The only place that knows TenSEAL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwright.errors import FederationError, Refused, Spoilt
from cellwright.federation.privacy._envelopes import packed, unpacked

if TYPE_CHECKING:
    from cellwright.federation.privacy._fixed_point import Grid

DEGREE, PRIME_BITS, SCALE_BITS = 8192, (60, 40, 60), 60
SLOTS = DEGREE // 2  # values a ciphertext
TOTAL_BITS = 46  # of a sum in steps of the grid: where float64, which CKKS encodes from and decodes to, is still exact enough
MOST_BYTES = 300_000  # of one ciphertext; it has 2 polynomials of 8192 coefficients, 100 bits each
_OFF_GRID = 0.25  # of a step; CKKS's error is below an eighth


def new_key() -> bytes:
    """A fresh context with its secret key, serialised."""
    made: bytes = _context().serialize(save_public_key=True, save_secret_key=True, save_galois_keys=False, save_relin_keys=False)
    return made


def with_key(serialised: bytes) -> Any:
    """The context of `new_key`.

    Raises:
        Refused: it is none, or holds no secret key.
    """
    import tenseal

    try:
        context = tenseal.context_from(serialised, n_threads=1)
    except (ValueError, RuntimeError) as error:
        raise Refused(f"the CKKS key that was dealt cannot be read: {error}") from None
    if not context.has_secret_key() or not context.has_public_key():
        raise Refused("the CKKS key that was dealt lacks its secret or its public part; the dealer must deal again")
    return context


def keyless() -> Any:
    """A context that can add ciphertexts of the same parameters, and nothing more."""
    context = _context()
    context.make_context_public()
    return context


def _context() -> Any:
    import tenseal

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, -1, list(PRIME_BITS), n_threads=1)
    context.global_scale = 2.0**SCALE_BITS
    return context


def encrypted(context: Any, integers: np.ndarray, grid: Grid) -> bytes:
    """A vector on the grid as packed ciphertexts of `SLOTS` values each."""
    import tenseal

    values = grid.values(integers)
    chunks = [values[at : at + SLOTS] for at in range(0, len(values), SLOTS)]
    return packed({f"{i:08d}": tenseal.ckks_vector(context, chunk).serialize() for i, chunk in enumerate(chunks)})


def added(context: Any, vectors: Mapping[str, bytes], length: int) -> bytes:
    """The sum of the owners' encrypted vectors, encrypted. At least one.

    Raises:
        Spoilt: one of them is no encrypted vector of that length; names its owner.
    """
    total: list[Any] = []
    for owner, vector in vectors.items():
        try:
            chunks = loaded(context, vector, length)
        except Refused as error:
            raise Spoilt(f"'{owner}': {error}", {owner: str(error)}) from None
        total = total or chunks
        if total is not chunks:
            _add(total, chunks, owner)
    return packed({f"{i:08d}": chunk.serialize() for i, chunk in enumerate(total)})


def _add(total: list[Any], chunks: list[Any], owner: str) -> None:
    """Add in place."""
    try:
        for mine, theirs in zip(total, chunks, strict=True):
            mine.add_(theirs)
    except (ValueError, RuntimeError) as error:
        words = f"an encrypted vector of other parameters ({error}); both sides must run the same version"
        raise Spoilt(f"'{owner}': {words}", {owner: words}) from None


def parts(vector: bytes, length: int) -> dict[str, bytes]:
    """The parts of a packed vector of `length` values, as far as they can be checked unread.

    Raises:
        Refused: others than there must be.
    """
    found = unpacked(vector)
    count = -(-length // SLOTS)
    if sorted(found) != [f"{i:08d}" for i in range(len(found))] or any(len(part) > MOST_BYTES for part in found.values()):
        raise Refused(f"an encrypted vector has parts of other names, or of over {MOST_BYTES} bytes")
    if len(found) != count:
        raise Refused(f"an encrypted vector has {len(found)} parts, expected {count} for {length} values")
    return found


def loaded(context: Any, vector: bytes, length: int) -> list[Any]:
    """The ciphertexts of a packed vector of `length` values, checked."""
    import tenseal

    found = parts(vector, length)
    sizes = [min(SLOTS, length - at) for at in range(0, length, SLOTS)]
    try:
        chunks = [tenseal.ckks_vector_from(context, found[name]) for name in sorted(found)]
    except (ValueError, RuntimeError) as error:
        raise Refused(f"an encrypted vector cannot be read: {error}; both sides must run the same version") from None
    if [chunk.size() for chunk in chunks] != sizes:
        raise Refused(f"an encrypted vector has {sum(chunk.size() for chunk in chunks)} values, expected {length}")
    return chunks


def decrypted(context: Any, vector: bytes, length: int, grid: Grid) -> np.ndarray:
    """What a packed vector holds, in steps of the grid, (length,) int64.

    Raises:
        Refused: it is no vector of that length.
        FederationError: it lies off the grid: encrypted under another key, or summed over too many.
    """
    values = np.concatenate(
        [np.asarray(chunk.decrypt(), np.float64) for chunk in loaded(context, vector, length)] or [np.zeros(0)]
    )
    steps = np.ldexp(values, grid.bits)
    if not float(np.abs(steps - np.rint(steps)).max(initial=0.0)) < _OFF_GRID or np.abs(steps).max(initial=0.0) >= 2**62:
        raise FederationError(
            "the decrypted sum lies off the grid: a vector in it is encrypted under another key; begin the round anew"
        )
    return np.rint(steps).astype(np.int64)
