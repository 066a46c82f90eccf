"""Half precision: 2 bytes a value (IEEE 754 binary16), a relative error of at most 2⁻¹¹ for values of at least 6·10⁻⁵."""

from __future__ import annotations

import numpy as np

from cellwright.federation.compression import _contract
from cellwright.federation.compression._checks import finite, of_form, same_names
from cellwright.federation.compression._contract import Encoded, dataclass
from cellwright.federation.contract import Arrays

_LARGEST = float(np.finfo(np.float16).max)  # 65504


@dataclass(frozen=True)
class Options(_contract.Options):
    """There is nothing to choose."""


class Codec(_contract.Codec):
    """Values are rounded to nearest; what is beyond ±65504 is cut off there and counted as lost."""

    title = "fp16"

    def encode(self, delta: Arrays) -> Encoded:
        finite(delta)
        arrays = {name: np.clip(array, -_LARGEST, _LARGEST).astype(np.float16) for name, array in delta.items()}
        return Encoded(arrays, {name: (delta[name] - array).astype(np.float32) for name, array in arrays.items()})

    def decode(self, arrays: Arrays, like: Arrays) -> Arrays:
        same_names(arrays, list(like))
        return {name: of_form(name, arrays[name], a.shape, np.float16).astype(np.float32) for name, a in like.items()}
