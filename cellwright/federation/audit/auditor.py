"""The auditor: holds every message against the rules, scores how reliable nodes are, and writes the log (M.3387 9.4).

Checks run in this order; the first that fails names the rule of the verdict:

    size        nothing is read of a message that is too large
    signature   it is signed by the node it came from
    freshness   of this request, of this round or not too old
    replay      its sequence is above all that were seen of the node, or new where messages may overtake each other
    finite      no NaN, no infinity: in its values, then in what it decodes to
    schema      values, names, shapes and types are those of its kind; it decodes
    norm        not above a bound, not far above the median of the round
    budget      bytes, energy and steps
    examples    as many windows as were deployed, about

What an update is worth (its contribution) is measured in quality/.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any

from cellwright.errors import FederationError, Refused
from cellwright.federation.audit import checks
from cellwright.federation.audit.checks import Message
from cellwright.federation.audit.log import AuditLog, Record
from cellwright.federation.audit.reliability import Reliability
from cellwright.federation.audit.replay import Taken
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import verify
from cellwright.federation.contract import Parcel


@dataclass(frozen=True)
class Verdict:
    """What the auditor says of one message."""

    accepted: bool
    rule: str = ""  # that was broken
    reason: str = ""  # in words


@dataclass
class _Known:
    """What is known of one node."""

    reliability: Reliability = field(default_factory=Reliability)
    taken: Taken = field(default_factory=Taken)  # its sequences
    sent_bytes: int = 0
    energy_j: float = 0.0
    examples: int | None = None  # windows, as deployed or first told
    norm: float | None = None  # of its last accepted update
    norm_round: int = 0


class Auditor:
    """Checks the messages of one request."""

    def __init__(
        self,
        rules: Rules,
        keys: Mapping[str, str] | None,
        log: AuditLog | None,
        form: Form | None = None,
        *,
        request: str = "",
        examples: Mapping[str, int] | None = None,
    ) -> None:
        """`keys`: Ed25519 public keys by node, hex; None: messages are not signed. `examples`: windows by node, as deployed."""
        self.rules, self.keys, self.log, self.request = rules, keys, log, request
        self.form = form or Form(like=None)
        self.round = 0
        self._told: tuple[Parcel, str] | None = None  # what was sent last, and its digest
        self._nodes: dict[str, _Known] = {node: _Known(examples=n) for node, n in (examples or {}).items()}

    def check(self, kind: str, node: str, parcel: Parcel, *, round_: int) -> Verdict:
        """Judge one message, against the others' updates of this round and the last that were accepted so far.

        In a round's first messages there may be too few of them for a median: where all replies are there, use `check_round`.
        """
        return self.check_round(kind, {node: parcel}, round_=round_)[node]

    def check_round(self, kind: str, parcels: Mapping[str, Parcel], *, round_: int) -> dict[str, Verdict]:
        """Judge the messages of a round together, sorted by node: the median of norms is that of all of them."""
        self._enter(round_)
        drafts = {node: self._read(Message(kind, node, parcels[node], round_)) for node in sorted(parcels)}
        middle = self._median({m.node: m.norm for m, verdict in drafts.values() if verdict.accepted and m.norm is not None})
        return {node: self._judged(message, verdict, middle) for node, (message, verdict) in drafts.items()}

    def late(self, node: str, *, kind: str = "train", reason: str = "not in time") -> None:
        """A message that did not come in time."""
        self._missed(node, "late", kind, reason)

    def lost(self, node: str, *, kind: str = "train", reason: str = "no answer") -> None:
        """A message that will not come: the node is gone, or answered with an error."""
        self._missed(node, "lost", kind, reason)

    def sent(self, kind: str, node: str, parcel: Parcel, *, round_: int) -> None:
        """Log a message of the coordinator."""
        if self._told is None or self._told[0] is not parcel:  # most often the same one goes to many
            self._told = (parcel, parcel.digest().hex())
        self.sent_as(kind, node, self._told[1], round_=round_)

    def sent_as(self, kind: str, node: str, digest: str, *, round_: int) -> None:
        """The same, where its digest is all that is known."""
        self._enter(round_)
        self._write(Record(kind, node, round_, digest, "sent"))

    def reliability(self, node: str) -> float:
        """Share of the node's messages that were in order and in time, 0 … 1, ageing; 1 for one that never spoke."""
        return self._nodes[node].reliability.share if node in self._nodes else 1.0

    def reliable(self, node: str) -> bool:
        """Whether its reliability is at least `least_reliability`."""
        return self.reliability(node) >= self.rules.least_reliability

    def deployed(self, node: str, examples: int) -> None:
        """How many windows a node holds: what it will be held to. Tell it again when its data have grown."""
        self._known(node).examples = examples

    def end_round(self) -> None:
        """Sign the log's head; a new round does so by itself."""
        if self.log is not None:
            self.log.seal()

    def close(self) -> None:
        """At the end of the training."""
        if self.log is not None:
            self.log.close()

    def state(self) -> bytes:
        """For a checkpoint, as JSON."""
        return json.dumps({"round": self.round, "nodes": {node: asdict(known) for node, known in self._nodes.items()}}).encode()

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave; the log says so, and goes on.

        Raises:
            FederationError: it is not a state of an auditor.
        """
        try:
            found = json.loads(state)
            nodes = {str(node): _known_from(fields) for node, fields in found["nodes"].items()}
            self.round, self._nodes = int(found["round"]), nodes
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FederationError(f"the checkpoint holds no state of an auditor ({error}); start the training anew") from None
        self._write(Record("note", round=self.round, reason=f"resumed from a checkpoint after round {self.round}"))

    def _read(self, message: Message) -> tuple[Message, Verdict]:
        """Every check that needs no other message."""
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("size", partial(checks.size, message, self.rules)),
            ("signature", partial(self._signed, message)),
            ("freshness", partial(checks.fresh, message, self.rules)),
            ("replay", partial(self._new, message)),
            ("finite", partial(checks.numbers, message)),
            ("schema", partial(checks.schema, message, self.form)),
            ("finite", partial(checks.finite, message)),
        )
        return message, _first_broken(steps)

    def _judged(self, message: Message, verdict: Verdict, middle: float | None) -> Verdict:
        """The remaining checks; then the node's account and the log."""
        known = self._known(message.node)
        if verdict.accepted:
            verdict = _first_broken(
                (
                    ("norm", partial(checks.norm, message, self.rules, middle)),
                    ("budget", partial(checks.budget, message, self.rules, known.sent_bytes, known.energy_j)),
                    ("examples", partial(checks.examples, message, self.rules, known.examples)),
                )
            )
        self._account(message, known, verdict)
        outcome = "accepted" if verdict.accepted else "refused"
        digest = "" if verdict.rule == "size" else message.digest.hex()
        self._write(Record(message.kind, message.node, message.round, digest, outcome, verdict.rule, verdict.reason))  # type: ignore[arg-type]
        return verdict

    def _account(self, message: Message, known: _Known, verdict: Verdict) -> None:
        known.reliability.told(verdict.accepted, self.rules.half_life)
        known.sent_bytes += message.payload_bytes
        if message.usage is not None:
            known.energy_j += message.usage.energy_j or 0.0
        if not verdict.accepted:
            return
        if message.norm is not None:
            known.norm, known.norm_round = message.norm, message.round
        told = message.parcel.values.get("examples")
        if isinstance(told, int) and (message.kind == "deploy" or (message.kind == "train" and known.examples is None)):
            known.examples = told

    def _signed(self, message: Message) -> None:
        if self.keys is None:
            return
        key, sender = self.keys.get(message.node), message.parcel.values.get("sender")
        if key is None:
            raise Refused(f"no public key of '{message.node}' is known; register the node with its key first")
        if sender != message.node:
            raise Refused(f"it came from '{message.node}' and says its sender is {str(sender)[:80]!r}")
        verify(message.parcel, key, digest=message.digest)

    def _new(self, message: Message) -> None:
        """Only what is signed can be told from a replay; an unsigned sequence could be made up."""
        if self.keys is not None:
            values = message.parcel.values
            before = (
                message.kind == "metadata" and values.get("request") == ""
            )  # they may be asked for before any task is deployed
            request, ordered = "" if before else self.request, not self.rules.overtaking
            self._known(message.node).taken.take(values, request=request, kind=message.kind, ordered=ordered)

    def _median(self, norms: Mapping[str, float]) -> float | None:
        """Of these and of what others last sent, in this round or the one before; None: too few."""
        recent = {n: k.norm for n, k in self._nodes.items() if k.norm is not None and k.norm_round >= self.round - 1}
        known = [*{**recent, **norms}.values()]
        return median(known) if len(known) >= self.rules.least_norms else None

    def _missed(self, node: str, what: Any, kind: str, reason: str) -> None:
        self._known(node).reliability.told(False, self.rules.half_life)
        self._write(Record(kind, node, self.round, verdict=what, reason=reason))

    def _known(self, node: str) -> _Known:
        return self._nodes.setdefault(node, _Known())

    def _enter(self, round_: int) -> None:
        if round_ > self.round:
            self.end_round()
        self.round = max(self.round, round_)

    def _write(self, record: Record) -> None:
        if self.log is not None:
            self.log.append(record)


def _first_broken(steps: tuple[tuple[str, Callable[[], None]], ...]) -> Verdict:
    for rule, passes in steps:
        try:
            passes()
        except FederationError as error:
            return Verdict(False, rule, str(error))
    return Verdict(True)


def _known_from(fields: Mapping[str, Any]) -> _Known:
    return _Known(**{**fields, "reliability": Reliability(**fields["reliability"]), "taken": Taken(**fields["taken"])})
