"""Codecs of the updates, one a file: fewer bytes on the wire. `Encoded.arrays` are exactly what travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellwright.federation.compression._contract import Codec


def codec(name: str, options: Mapping[str, Any] | None = None) -> Codec:
    """The codec of that name, with its options.

    Raises:
        UnknownName: there is no such codec.
        ParamsError: an option it does not know, or a value out of range.
    """
    from cellwright.families import member
    from cellwright.training.candidates import parse_options

    module = member("cellwright.federation.compression", name, what="codec")
    chosen = parse_options(module.Options, options or {}, name, where=f"federation.compression_options of {name}")
    made: Codec = module.Codec(chosen)
    return made
