"""Question and answer over a channel, where every party must answer, and the bytes that it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import get_args

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Channel, Parcel, Source, Usage
from cellwright.federation.ledger import less_certain
from cellwright.federation.messages import usage_of


class Left(FederationError):
    """A party did not answer; the others have done their part of the message."""

    def __init__(self, party: str, kind: str, reason: str) -> None:
        super().__init__(f"party '{party}' gave no answer to '{kind}' ({reason}); every party is needed")
        self.party = party


@dataclass
class Traffic:
    """Exact bytes of the messages on the wire, by party, as the channel counts them, and what the parties say that they spent."""

    down_bytes: Counter[str] = field(default_factory=Counter)  # to the party
    up_bytes: Counter[str] = field(default_factory=Counter)  # from the party
    messages: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)
    energy_j: dict[str, float] = field(default_factory=dict)  # of the parties that know it
    energy_source: Source | None = None  # the least certain

    @property
    def total(self) -> int:
        """Both ways, all parties."""
        return self.down_bytes.total() + self.up_bytes.total()

    def spend(self, party: str, usage: Usage) -> None:
        """Add what a party spent on one message."""
        self.cpu_s[party] = self.cpu_s.get(party, 0.0) + usage.cpu_s
        if usage.energy_j is not None:
            self.energy_j[party] = self.energy_j.get(party, 0.0) + usage.energy_j
            self.energy_source = less_certain(self.energy_source, usage.energy_source)


def ask(
    channel: Channel,
    kind: str,
    parcels: Mapping[str, Parcel],
    *,
    deadline_s: float,
    traffic: Traffic,
    wants: Collection[str] = (),
) -> dict[str, Parcel]:
    """Send one parcel to each party and wait for all answers: by party, sorted. `wants`: values or arrays that each must hold.

    Raises:
        Left: one that is gone, late, or refuses.
        Refused: an answer that lacks what it must hold.
    """
    replies = channel.receive(channel.send(kind, parcels), until=channel.now() + deadline_s)
    for party, reply in replies.items():
        traffic.down_bytes[party] += reply.sent_bytes
        traffic.up_bytes[party] += reply.received_bytes
        traffic.messages += 1
    answers: dict[str, Parcel] = {}
    for party in sorted(parcels):
        came = replies.get(party)
        if came is None or came.parcel is None:
            raise Left(party, kind, f"nothing came within {deadline_s:g} s" if came is None else came.error or "no reason given")
        if lacking := sorted(set(wants) - {*came.parcel.values, *came.parcel.arrays}):
            raise Refused(f"party '{party}' answered '{kind}' without {', '.join(lacking)}; all must run the same version")
        if usage := _spent(party, kind, came.parcel):
            traffic.spend(party, usage)
        answers[party] = came.parcel
    return answers


def _spent(party: str, kind: str, answer: Parcel) -> Usage | None:
    """What answering took the party; None: it does not say."""
    if "usage/cpu_s" not in answer.values:
        return None
    try:
        usage = usage_of(answer.values)
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"party '{party}' answered '{kind}' with a usage that cannot be read ({error})") from None
    if min(usage.seconds, usage.cpu_s, usage.energy_j or 0.0) < 0 or usage.energy_source not in (None, *get_args(Source)):
        raise Refused(f"party '{party}' says that '{kind}' took less than nothing, or names no source of its energy")
    return usage
