"""INT8 with one scale a tensor: 1 byte a value and 4 a tensor, the largest magnitude becoming ±127.

Rounding is stochastic by default (QSGD): up with the probability of the fraction cut off, so that the expected update is the update
itself and nothing has to be fed back. The randomness is seeded by the update's own bytes: the same update always encodes alike, on
any owner and in any run, and two different ones are rounded independently.
"""

from __future__ import annotations

import hashlib

import numpy as np

from cellwright.errors import FederationError
from cellwright.federation.compression import _contract
from cellwright.federation.compression._checks import finite, of_form, same_names
from cellwright.federation.compression._contract import Encoded, dataclass, option
from cellwright.federation.contract import Arrays

_VALUES, _SCALES = "q/", "scales"
_LEVELS = 127
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Options(_contract.Options):
    """How values between two levels are rounded."""

    rounding: str = option(
        "stochastic",
        "stochastic: right in the mean; nearest: half the largest error, but biased",
        choices=("stochastic", "nearest"),
    )


class Codec(_contract.Codec):
    """The error of a value is below one level (`nearest`: half of one), a level being the tensor's largest magnitude / 127."""

    title = "INT8"
    paper = "Alistarh et al. 2017, QSGD: Communication-efficient SGD via gradient quantization and encoding"

    def encode(self, delta: Arrays) -> Encoded:
        finite(delta)
        scales = np.array([_scale(array) for array in delta.values()], dtype=np.float32)
        rng = self._rng(delta)
        arrays: Arrays = {_SCALES: scales}
        for scale, (name, array) in zip(scales, delta.items(), strict=True):
            arrays[_VALUES + name] = _quantised(array, float(scale), rng)
        decoded = self.decode(arrays, delta)
        return Encoded(arrays, {name: (delta[name] - array).astype(np.float32) for name, array in decoded.items()})

    def decode(self, arrays: Arrays, like: Arrays) -> Arrays:
        same_names(arrays, [_SCALES, *(_VALUES + name for name in like)])
        scales = of_form(_SCALES, arrays[_SCALES], (len(like),), np.float32)
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise FederationError("scales of the update must be finite and not negative; it was not encoded by this codec")
        return {
            name: _restored(of_form(name, arrays[_VALUES + name], array.shape, np.int8), float(scale))
            for scale, (name, array) in zip(scales, like.items(), strict=True)
        }

    def _rng(self, delta: Arrays) -> np.random.Generator | None:
        if self.options.rounding == "nearest":
            return None
        total = hashlib.sha256()
        for array in delta.values():
            total.update(np.ascontiguousarray(array).tobytes())
        return np.random.default_rng(int.from_bytes(total.digest(), "little"))


def _scale(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0)) / _LEVELS


def _quantised(array: np.ndarray, scale: float, rng: np.random.Generator | None) -> np.ndarray:
    """Levels of −127 … 127; all zero where the tensor is, or is too small for a scale."""
    if scale == 0:
        return np.zeros(array.shape, np.int8)
    levels = array / np.float64(scale)
    rounded = np.rint(levels) if rng is None else np.floor(levels + rng.random(array.shape))
    return np.clip(rounded, -_LEVELS, _LEVELS).astype(np.int8)


def _restored(levels: np.ndarray, scale: float) -> np.ndarray:
    """float32; the largest magnitudes may round past what float32 holds."""
    return np.clip(levels * scale, -_LARGEST, _LARGEST).astype(np.float32)
