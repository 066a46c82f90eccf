"""Ways to write a file as a difference from another, one a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellwright.delta.modes._contract import Mode

FAMILY = "cellwright.delta.modes"


def mode(name: str) -> Mode:
    """The mode of that name. Raises UnknownName."""
    from cellwright.families import member

    found: Mode = member(FAMILY, name, what="mode of a patch").Way()
    return found
