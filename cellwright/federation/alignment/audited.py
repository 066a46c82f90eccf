"""Messages between parties, signed and held against the rules as those of a round are: a Channel over another one (M.3387 9.4).

What is asked over it carries the coordinator's signature. What comes back is the party's own, new, of the round that was asked, finite
and not too large, or it is an error that names the party and what was wrong. Each message is a record of the run's log.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cellwright.federation.alignment.audit_summary import AuditSummary, summary
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.log import AuditLog, Record
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.contract import Channel, Parcel, Reply
from cellwright.federation.ledger import Ledger
from cellwright.federation.owner_kit import OwnerKit
from cellwright.federation.post import Post
from cellwright.files import write_bytes
from cellwright.params import Energy, Params
from cellwright.workspace import Workspace

LOG = "audit.jsonl"  # in the folder of a training
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Audit:
    """The audit of one run: several trainings can go into its log, one after the other."""

    log: AuditLog
    signer: Signer

    @classmethod
    @contextmanager
    def opened(cls, path: Path, signer: Signer) -> Iterator[Audit]:
        """Begin the log, or go on with it, under the coordinator's key.

        Raises:
            FederationError: the log that is there was altered.
        """
        with AuditLog.open(path, signer) as log:
            yield cls(log, signer)

    def begins(self, training: str) -> None:
        """Note in the log which training the records from here on are of."""
        self.log.append(Record("note", reason=f"the training '{training}' begins, or goes on"))

    def auditor(self, rules: Rules, keys: Mapping[str, str], request: str, form: Form | None = None) -> Auditor:
        """One that writes into this log."""
        return Auditor(rules, keys, self.log, form, request=request)


@contextmanager
def audited(params: Params, ws: Workspace, folder: Path) -> Iterator[Audit | None]:
    """The audit of a run of `params`, its log in `folder`; None: federation.audit is off."""
    from cellwright.federation.running import KEY
    from cellwright.federation.runtimes.servers import signing_key

    if not params.federation.audit:
        yield None
        return
    with Audit.opened(folder / LOG, signing_key(ws.federation / KEY)) as audit:
        yield audit


def summed(audit: Audit | None, ws: Workspace) -> AuditSummary | None:
    """What a closed log came to."""
    return None if audit is None else summary(ws.run_folder, audit.log.path, audit.signer.public)


@dataclass(frozen=True)
class Kits:
    """What parties that this process plays bring along, and by what key each is known."""

    by_name: dict[str, OwnerKit]
    keys: dict[str, str]

    @classmethod
    def made(cls, names: Collection[str], audit: Audit | None, energy: Energy | None, exogenous: tuple[str, ...] = ()) -> Kits:
        """A fresh key for each, and the coordinator's, whom alone they answer; without an audit nothing is signed."""
        signers = {name: Signer.generate() for name in names} if audit is not None else {}
        keys = {name: signer.public for name, signer in signers.items()}
        by_name = {
            name: OwnerKit(
                signer=signers.get(name),
                coordinator_key=audit.signer.public if audit is not None else None,
                peers={other: key for other, key in keys.items() if other != name},
                energy=energy,
                exogenous=exogenous,
            )
            for name in names
        }
        return cls(by_name, keys)


class AuditedChannel:
    """A channel that signs what goes out and lets the auditor judge what comes in.

    The round of a message is what its value `round` says, 0 without one; a party's answer must say the same. With a `state` file the
    auditor's memory outlives the process, so that nothing older can be replayed to the next one.
    """

    def __init__(self, channel: Channel, auditor: Auditor, signer: Signer, *, state: Path | None = None) -> None:
        """Sequences begin above those of any process before, by the clock, as the parties' own do.

        Raises:
            FederationError: the state is none of an auditor.
        """
        self.channel, self.auditor = channel, auditor
        self._post = Post(channel, sender=COORDINATOR, request=auditor.request, signer=signer, auditor=auditor)
        self._post.sequence = time.time_ns() // 1000
        self._asked: dict[str, tuple[str, int]] = {}  # by ticket: kind and round
        self._round, self._state = 0, state
        if state is not None and state.is_file():
            auditor.restore(state.read_bytes())

    def nodes(self) -> tuple[str, ...]:
        """Names of the parties that can be reached now, sorted."""
        return self.channel.nodes()

    def now(self) -> float:
        """Seconds on the channel's clock."""
        return self.channel.now()

    def send(self, kind: str, parcels: Mapping[str, Parcel]) -> dict[str, str]:
        """Sign, log and send; returns a ticket a party. All messages of a call are of one round."""
        (round_,) = {int(parcel.values.get("round", 0)) for parcel in parcels.values()} or {self._round}
        if round_ != self._round:
            self._turn(round_)
        tickets = self._post.send(kind, parcels, round_=round_)
        self._asked |= dict.fromkeys(tickets.values(), (kind, round_))
        return tickets

    def receive(self, tickets: Mapping[str, str], *, until: float, least: int | None = None) -> dict[str, Reply]:
        """Replies that have come; one that the auditor refuses is an error, and who is late is logged."""
        replies = self._post.fetch(tickets, until=until, least=least)
        judged: dict[str, Reply] = {}
        for kind, round_ in sorted({self._asked[ticket] for ticket in tickets.values()}):
            of_it = [name for name, ticket in tickets.items() if self._asked[ticket] == (kind, round_)]
            came = {name: replies[name] for name in of_it if name in replies}
            refused = self._post.opened(kind, came, Ledger(), round_=round_).refused
            judged |= {name: _refused(reply, refused[name]) if name in refused else reply for name, reply in came.items()}
            if least is None:
                self._post.late(kind, [name for name in of_it if name not in came])
        for name in judged:
            self._asked.pop(tickets[name], None)
        return dict(sorted(judged.items()))

    def _turn(self, round_: int) -> None:
        """Another round: what the last one was judged by is signed and kept."""
        self._round = round_
        self.auditor.end_round()
        if self._state is not None:
            write_bytes(self._state, self.auditor.state())


def _refused(reply: Reply, why: str) -> Reply:
    return replace(reply, parcel=None, error=f"its message was refused: {why}")
