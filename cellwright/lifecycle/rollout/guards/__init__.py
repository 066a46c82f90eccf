"""Guards of a rollout: one file each; see _contract.py."""

from __future__ import annotations

from cellwright.families import member, members
from cellwright.lifecycle.rollout.guards._contract import Guard

PACKAGE = __name__


def names() -> tuple[str, ...]:
    """All guards there are."""
    return members(PACKAGE)


def guard(name: str) -> Guard:
    """One guard by its name.

    Raises:
        UnknownName: there is none of that name; the message lists those there are.
    """
    return Guard(name, member(PACKAGE, name, what="guard"))
