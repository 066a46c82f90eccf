"""Question and answer over a channel, where every party must answer, and the bytes that it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cellwright.errors import FederationError, Refused
from cellwright.federation.contract import Channel, Parcel


class Left(FederationError):
    """A party did not answer; the others have done their part of the message."""

    def __init__(self, party: str, kind: str, reason: str) -> None:
        super().__init__(f"party '{party}' gave no answer to '{kind}' ({reason}); every party is needed")
        self.party = party


@dataclass
class Traffic:
    """Exact bytes of the messages on the wire, by party, as the channel counts them."""

    down_bytes: Counter[str] = field(default_factory=Counter)  # to the party
    up_bytes: Counter[str] = field(default_factory=Counter)  # from the party
    messages: int = 0

    @property
    def total(self) -> int:
        """Both ways, all parties."""
        return self.down_bytes.total() + self.up_bytes.total()


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
        answers[party] = came.parcel
    return answers
