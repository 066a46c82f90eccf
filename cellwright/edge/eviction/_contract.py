"""What a policy is: one file with `title` and `worth(candidate)`. Of equal priority, what is least worth goes first."""

from __future__ import annotations

from dataclasses import dataclass

from cellwright.edge.uses import Key


@dataclass(frozen=True)
class Candidate:
    """A version that may be dropped; the hub has it, and it is fetched again when somebody asks for it."""

    key: Key
    bytes: int
    popularity: float  # requests, older ones counting less (uses.py)
    priority: int = 0  # of the rules that put it here; whatever the policy, a lower priority goes first
