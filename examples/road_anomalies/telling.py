"""What the story prints, and what must hold for it to have succeeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Say = Callable[[str], None]


@dataclass
class Telling:
    """Lines for people, and conditions by step."""

    say: Say
    broken: list[str] = field(default_factory=list)

    def step(self, number: int, title: str) -> None:
        """Begin a step."""
        self.say(f"\nStep {number}  {title}")

    def line(self, words: str) -> None:
        """One line of a step."""
        self.say(f"  {words}")

    def holds(self, condition: bool, words: str) -> None:
        """A condition of the story; it goes on either way, and fails in the end."""
        self.say(f"  {'[ok]    ' if condition else '[FAILED]'} {words}")
        if not condition:
            self.broken.append(words)
