"""What one round cost and what became of each owner in it, added up from every message of the round, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cellwright.federation import messages
from cellwright.federation.contract import Evaluation, Parcel, Reply, Source, Update, Usage
from cellwright.federation.results import OwnerRound

Fate = Literal["counted", "late", "refused", "lost", "empty", "evaluated"]
_CERTAINTY: tuple[Source, ...] = ("measured", "modelled", "constant")


@dataclass
class Entry:
    """One owner in one round."""

    fate: Fate = "evaluated"  # until it is asked for an update
    reason: str = ""
    steps: int = 0
    examples: int = 0
    staleness: int = 0
    train_loss: float | None = None
    mae: float | None = None
    seconds: float = 0.0
    cpu_s: float = 0.0
    energy_j: float | None = None
    energy_source: Source | None = None
    co2_g: float | None = None
    up_bytes: int = 0
    down_bytes: int = 0
    weight: float = 0.0

    def spend(self, usage: Usage) -> None:
        """Add what a node spent on one message; what is not known adds nothing, and of several sources the least certain is named."""
        self.cpu_s += usage.cpu_s
        self.energy_j = plus(self.energy_j, usage.energy_j)
        self.co2_g = plus(self.co2_g, usage.co2_g)
        if usage.energy_j is not None:
            self.energy_source = less_certain(self.energy_source, usage.energy_source)


@dataclass
class Ledger:
    """All owners in one round."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def of(self, owner: str) -> Entry:
        """The owner's entry."""
        return self.entries.setdefault(owner, Entry())

    def carried(self, replies: Iterable[Reply]) -> None:
        """Bytes of messages, there and back."""
        for reply in replies:
            entry = self.of(reply.node)
            entry.down_bytes += reply.sent_bytes
            entry.up_bytes += reply.received_bytes

    def told(self, answers: Mapping[str, Parcel]) -> None:
        """What answers to other messages than updates and judgements say they took."""
        for owner, parcel in answers.items():
            if (usage := messages.told_usage(parcel)) is not None:
                self.of(owner).spend(usage)

    def counted(self, update: Update, seconds: float) -> None:
        """An update that goes into the aggregate."""
        entry = self.of(update.owner)
        entry.fate, entry.reason, entry.staleness, entry.examples = "counted", "", update.staleness, update.examples
        entry.steps, entry.seconds = entry.steps + update.steps, entry.seconds + seconds
        entry.train_loss = update.metrics.get("train_loss")
        entry.spend(update.usage)

    def left_out(self, owner: str, fate: Fate, reason: str) -> None:
        """An owner whose update does not count, and why; the first reason stays."""
        entry = self.of(owner)
        if entry.fate in ("evaluated", "counted"):
            entry.fate, entry.reason = fate, reason

    def judged(self, evaluation: Evaluation, usage: Usage) -> None:
        """How good the new weights are on an owner's validation span."""
        entry = self.of(evaluation.owner)
        entry.mae = evaluation.mae
        entry.spend(usage)

    def unjudged(self, owner: str, fate: Fate, reason: str) -> None:
        """An owner that did not say how good the new weights are; an update of its own stays counted."""
        entry = self.of(owner)
        if entry.fate == "evaluated":
            entry.fate = fate
        entry.reason = entry.reason or f"not judged: {reason}"

    def energy_j(self) -> float | None:
        """Of all owners; None: none reported any."""
        known = [e.energy_j for e in self.entries.values() if e.energy_j is not None]
        return sum(known) if known else None

    def usage(self, seconds: float) -> Usage:
        """What all owners spent together, in so many seconds."""
        whole = Usage(seconds, 0.0, None, None)
        for e in self.entries.values():
            source = less_certain(whole.energy_source, e.energy_source)
            whole = Usage(seconds, whole.cpu_s + e.cpu_s, plus(whole.energy_j, e.energy_j), source, plus(whole.co2_g, e.co2_g))
        return whole

    def bytes(self) -> tuple[int, int]:
        """(from the owners, to the owners)."""
        return sum(e.up_bytes for e in self.entries.values()), sum(e.down_bytes for e in self.entries.values())

    def records(self) -> list[OwnerRound]:
        """Of all who were sent anything, sorted by owner."""
        return [_record(owner, entry) for owner, entry in sorted(self.entries.items())]


def _record(owner: str, entry: Entry) -> OwnerRound:
    return OwnerRound(owner=owner, outcome=entry.fate, **{name: value for name, value in vars(entry).items() if name != "fate"})


def plus(one: float | None, other: float | None) -> float | None:
    """The sum of what is known."""
    if one is None or other is None:
        return one if other is None else other
    return one + other


def less_certain(one: Source | None, other: Source | None) -> Source | None:
    """Of the sources of two readings that are added, the one that says how far the sum can be trusted."""
    known = [s for s in (one, other) if s is not None]
    return max(known, key=_CERTAINTY.index) if known else None
