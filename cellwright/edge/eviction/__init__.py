"""Which version goes first where the disk budget is too small for all that an edge shall hold; one policy a file.

Pinned versions and those on trial are never up for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from cellwright.edge.eviction._contract import Candidate

FAMILY = "cellwright.edge.eviction"


def victims(policy: str, candidates: Iterable[Candidate], needed_bytes: int) -> tuple[Candidate, ...] | None:
    """The versions to drop, the least worth first, until `needed_bytes` are free; None where all together do not suffice.

    Raises:
        UnknownName: there is no such policy.
    """
    from cellwright.families import member

    worth = member(FAMILY, policy, what="eviction policy").worth
    chosen: list[Candidate] = []
    freed = 0
    for candidate in sorted(candidates, key=lambda c: (c.priority, worth(c), c.key)):
        if freed >= needed_bytes:
            break
        chosen.append(candidate)
        freed += candidate.bytes
    return tuple(chosen) if freed >= needed_bytes else None
