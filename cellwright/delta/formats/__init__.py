"""Where a model file keeps its weights, one file format a file. Nothing is executed and nothing is loaded: only places are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellwright.delta.binary import Binary
    from cellwright.delta.formats._contract import Tensor

FAMILY = "cellwright.delta.formats"


def tensors(file: Binary) -> list[Tensor] | None:
    """The tensors of a file, in order and without overlaps; None: in no format that is known, or not as the format says."""
    from cellwright.delta.formats._contract import Unreadable, checked
    from cellwright.families import member, members

    for name in members(FAMILY):
        try:
            return checked(file, member(FAMILY, name, what="file format").tensors(file))
        except Unreadable:
            continue
    return None
