"""No compression: an update travels as it is, bit for bit."""

from __future__ import annotations

from cellwright.federation.compression import _contract
from cellwright.federation.compression._checks import of_form, same_names
from cellwright.federation.compression._contract import Encoded, dataclass
from cellwright.federation.contract import Arrays


@dataclass(frozen=True)
class Options(_contract.Options):
    """There is nothing to choose."""


class Codec(_contract.Codec):
    """Names, types and values stay."""

    title = "none"

    def encode(self, delta: Arrays) -> Encoded:
        return Encoded(dict(delta), {})

    def decode(self, arrays: Arrays, like: Arrays) -> Arrays:
        same_names(arrays, list(like))
        return {name: of_form(name, arrays[name], array.shape, array.dtype) for name, array in like.items()}
