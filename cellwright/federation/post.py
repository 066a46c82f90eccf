"""Sends a coordinator's messages signed, and takes only replies that the auditor accepts; every byte goes into the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cellwright.federation.contract import Channel, Parcel, Reply
from cellwright.federation.ledger import Ledger

if TYPE_CHECKING:
    from cellwright.federation.audit.auditor import Auditor
    from cellwright.federation.audit.signing import Signer

_PER_ATTEMPT = 1 << 32  # sequence numbers of one process; a resumed one begins above all that its forerunner can have used
_LONGEST_REASON = 300


@dataclass
class Answers:
    """What came back to one kind of message, by node, sorted. Who is in none of these has not answered yet."""

    parcels: dict[str, Parcel] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # from sending to arrival, of those in `parcels`
    refused: dict[str, str] = field(default_factory=dict)  # broke a rule: why
    failed: dict[str, str] = field(default_factory=dict)  # the node is gone, or could not do it: why


class Post:
    """A coordinator's way to its nodes."""

    def __init__(
        self,
        channel: Channel,
        *,
        sender: str,
        request: str,
        signer: Signer | None = None,
        auditor: Auditor | None = None,
        attempt: int = 0,
    ) -> None:
        self.channel, self.sender, self.request = channel, sender, request
        self.signer, self.auditor = signer, auditor
        self.sequence = attempt * _PER_ATTEMPT
        self.auditor_cpu_s = 0.0  # that checking and logging took

    def resume(self, attempt: int) -> None:
        """Use sequence numbers above those of any earlier attempt; by the clock (µs), since a training that is begun anew has no
        checkpoint to count attempts in, and owners elsewhere remember what they saw."""
        self.sequence = max(self.sequence, attempt * _PER_ATTEMPT, time.time_ns() // 1000)

    def send(self, kind: str, parcels: Mapping[str, Parcel], *, round_: int) -> dict[str, str]:
        """One parcel to each node; one that several nodes get is signed once. Returns a ticket a node."""
        if not parcels:
            return {}
        signed = self._signed(kind, parcels)
        if self.auditor is not None:
            with self._audited():
                for node, parcel in signed.items():
                    self.auditor.sent(kind, node, parcel, round_=round_)
        return self.channel.send(kind, signed)

    def fetch(self, tickets: Mapping[str, str], *, until: float, least: int | None = None) -> dict[str, Reply]:
        """Replies that have come, unread. A node's replies are to be opened in the order of what it was asked."""
        return self.channel.receive(tickets, until=until, least=least) if tickets else {}

    def opened(self, kind: str, replies: Mapping[str, Reply], ledger: Ledger, *, round_: int) -> Answers:
        """Replies as far as the auditor accepts them; `round_`: the one that is under way."""
        ledger.carried(replies.values())
        came = {node: reply.parcel for node, reply in replies.items() if reply.parcel is not None}
        answers = Answers(
            failed={n: (r.error or "it sent nothing")[:_LONGEST_REASON] for n, r in replies.items() if r.parcel is None}
        )
        if self.auditor is not None:
            with self._audited():
                for node, why in answers.failed.items():
                    self.auditor.lost(node, kind=kind, reason=why)
                verdicts = self.auditor.check_round(kind, came, round_=round_)
            answers.refused = {n: verdict.reason[:_LONGEST_REASON] for n, verdict in verdicts.items() if not verdict.accepted}
        answers.parcels = {node: parcel for node, parcel in came.items() if node not in answers.refused}
        answers.seconds = {node: replies[node].seconds for node in answers.parcels}
        return answers

    def late(self, kind: str, nodes: Iterable[str]) -> None:
        """Tell the auditor who did not answer in time."""
        if self.auditor is not None:
            with self._audited():
                for node in nodes:
                    self.auditor.late(node, kind=kind)

    def ask(self, kind: str, parcels: Mapping[str, Parcel], ledger: Ledger, *, round_: int, wait_s: float) -> Answers:
        """Send, and wait for all that answer in time."""
        tickets = self.send(kind, parcels, round_=round_)
        answers = self.opened(kind, self.fetch(tickets, until=self.channel.now() + wait_s), ledger, round_=round_)
        self.late(kind, sorted(set(tickets) - {*answers.parcels, *answers.refused, *answers.failed}))
        return answers

    @contextmanager
    def _audited(self) -> Iterator[None]:
        """What is done here is the auditor's work."""
        began = time.thread_time()
        try:
            yield
        finally:
            self.auditor_cpu_s += time.thread_time() - began

    def _signed(self, kind: str, parcels: Mapping[str, Parcel]) -> Mapping[str, Parcel]:
        if self.signer is None:
            return parcels
        done: dict[int, Parcel] = {}
        for parcel in parcels.values():
            if id(parcel) not in done:
                self.sequence += 1
                told = {"sender": self.sender, "request": self.request, "kind": kind}
                done[id(parcel)] = self.signer.sign(parcel, sequence=self.sequence, **told)
        return {node: done[id(parcel)] for node, parcel in parcels.items()}
