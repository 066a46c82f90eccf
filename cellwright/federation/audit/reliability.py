"""How reliable a node is: the share of its messages that were in order and in time, the older ones counting less (M.3387 9.4)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Reliability:
    """One node's. A new one has one good message to its credit, which ages like the others."""

    good: float = 1.0
    total: float = 1.0

    @property
    def share(self) -> float:
        """0 … 1."""
        return self.good / self.total

    def told(self, ok: bool, half_life: float) -> None:
        """One more message; `half_life`: messages after which one counts half."""
        keep = 0.5 ** (1 / half_life)
        self.good, self.total = self.good * keep + ok, self.total * keep + 1
