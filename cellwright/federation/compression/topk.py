"""Top-k: only the values of largest magnitude over the whole update travel; the others wait for the next one (error feedback).

On the wire: `values` float32 (k,), and `gaps` uint8, how far each kept value lies behind the one before it in the flattened update.
Each 255 in `gaps` says "255 further, none kept yet"; so an index costs one byte where a tenth is kept, and cannot repeat.
"""

from __future__ import annotations

import math

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.compression import _contract
from cellwright.federation.compression._checks import finite, of_form, same_names
from cellwright.federation.compression._contract import Encoded, dataclass, option
from cellwright.federation.contract import Arrays

_ESCAPE = 255


@dataclass(frozen=True)
class Options(_contract.Options):
    """How much is kept."""

    share: float = option(0.1, "share of the values that travel", low=1e-6, high=1.0)


class Codec(_contract.Codec):
    """Kept values arrive exactly; what is left out is lost for now, and fed back."""

    title = "top-k"
    paper = "Stich, Cordonnier, Jaggi 2018, Sparsified SGD with memory; Aji, Heafield 2017, Sparse communication"
    feedback = True

    def encode(self, delta: Arrays) -> Encoded:
        finite(delta)
        flat = _flattened(delta)
        kept = _largest(np.abs(flat), self._kept(flat.size))
        lost = flat.copy()
        lost[kept] = 0
        return Encoded({"values": flat[kept], "gaps": _gaps(kept)}, _shaped(lost, delta))

    def decode(self, arrays: Arrays, like: Arrays) -> Arrays:
        same_names(arrays, ["values", "gaps"])
        size = sum(array.size for array in like.values())
        count = self._kept(size)
        values = of_form("values", arrays["values"], (count,), np.float32)
        flat = np.zeros(size, np.float32)
        flat[_indices(arrays["gaps"], count, size)] = values
        return _shaped(flat, like)

    def _kept(self, size: int) -> int:
        return math.ceil(self.options.share * size)


def _flattened(delta: Arrays) -> np.ndarray:
    parts = [np.asarray(array, np.float32).reshape(-1) for array in delta.values()]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _shaped(flat: np.ndarray, like: Arrays) -> Arrays:
    ends = np.cumsum([array.size for array in like.values()])[:-1]
    parts = np.split(flat, ends) if like else []
    return {name: part.reshape(array.shape) for (name, array), part in zip(like.items(), parts, strict=True)}


def _largest(magnitudes: np.ndarray, count: int) -> np.ndarray:
    """Ascending indices of the `count` largest; of equal ones the first, so that the choice is the same on any processor."""
    if count >= magnitudes.size:
        return np.arange(magnitudes.size)
    least = np.partition(magnitudes, magnitudes.size - count)[magnitudes.size - count]
    chosen = magnitudes > least
    chosen[np.flatnonzero(magnitudes == least)[: count - int(chosen.sum())]] = True
    return np.flatnonzero(chosen)


def _gaps(indices: np.ndarray) -> np.ndarray:
    """Ascending indices as bytes: the values skipped before each, with as many escapes as 255 fits in."""
    escapes, rest = np.divmod(np.diff(indices, prepend=-1) - 1, _ESCAPE)
    out = np.full(int(escapes.sum()) + len(indices), _ESCAPE, np.uint8)
    out[np.cumsum(escapes + 1) - 1] = rest
    return out


def _indices(gaps: np.ndarray, count: int, size: int) -> np.ndarray:
    """The inverse of `_gaps`.

    Raises:
        FederationError: not `count` indices, or beyond the update's `size`.
    """
    if gaps.ndim != 1 or gaps.dtype != np.uint8 or len(gaps) > count + size // _ESCAPE:
        raise FederationError(
            f"'gaps' of the update: expected uint8 ({count} to {count + size // _ESCAPE},), found {gaps.dtype.name} {gaps.shape}; "
            "both sides must use the same network and the same federation.compression"
        )
    ends = gaps != _ESCAPE
    indices = np.cumsum(gaps.astype(np.int64) + ends)[ends] - 1
    if len(indices) != count or (len(gaps) and not ends[-1]) or (count and indices[-1] >= size):
        raise FederationError(f"'gaps' of the update must tell {count} indices below {size}; it was not encoded by this codec")
    return indices
