"""The coordinator's side of an auditor that is a node of its own (node.py): shows it every message, takes its signed verdicts.

It stands where the auditor of the coordinator's process would stand. The coordinator keeps a log as well, of what the auditor said.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from cellwright.errors import FederationError, Refused
from cellwright.federation.audit.auditor import Auditor, Verdict
from cellwright.federation.audit.chain import records
from cellwright.federation.audit.log import AuditLog, Record
from cellwright.federation.audit.rules import Rules
from cellwright.federation.audit.shown import KIND, RELIABILITY, ROWS, Event, Row, Shown, Then, closed_up, row_of, shared
from cellwright.federation.audit.signing import Signer, newer, verify
from cellwright.federation.contract import Channel, Parcel

_WAIT_S = 600.0


class DistantAuditor(Auditor):
    """Asks an auditor's node for what an Auditor would say."""

    def __init__(
        self,
        channel: Channel,
        name: str,
        public_key: str,
        signer: Signer,
        rules: Rules,
        log: AuditLog,
        *,
        sender: str,
        request: str,
        wait_s: float = _WAIT_S,
    ) -> None:
        """`name`, `public_key`: the auditor's; `signer`, `sender`, `log`: the coordinator's. `wait_s`: longest for one answer."""
        super().__init__(rules, None, log, request=request)
        self._channel, self.name, self._key, self._signer = channel, name, public_key, signer
        self._sender, self._wait_s, self._copy = sender, wait_s, log
        self._events: list[Event] = []
        self._reliability: dict[str, float] = {}
        self._asked, self._heard = 0, -1  # sequences
        self._rows = sum(1 for row in records(log.path) if shared(row))

    def check_round(self, kind: str, parcels: Mapping[str, Parcel], *, round_: int) -> dict[str, Verdict]:
        """The auditor's verdicts on the messages of a round.

        Raises:
            FederationError: it does not answer, or what comes is not its word on these messages.
        """
        if round_ > self.round:
            self.end_round()
        self.round = max(self.round, round_)
        if not parcels:
            return {}
        nodes = sorted(parcels)
        rows = self._show(kind, {node: parcels[node] for node in nodes})[-len(nodes) :]
        if [(row["kind"], row["node"]) for row in rows] != [(kind, node) for node in nodes]:
            raise FederationError(f"the auditor '{self.name}' judged other messages than it was shown; the training cannot go on")
        return {row["node"]: Verdict(row["verdict"] == "accepted", row["rule"], row["reason"]) for row in rows}

    def sent_as(self, kind: str, node: str, digest: str, *, round_: int) -> None:
        """A message of the coordinator; the auditor is told with the next that is shown."""
        self._events.append(["sent", kind, node, round_, digest])

    def late(self, node: str, *, kind: str = "train", reason: str = "not in time") -> None:
        """A message that did not come in time."""
        self._events.append(["late", kind, node, reason])

    def lost(self, node: str, *, kind: str = "train", reason: str = "no answer") -> None:
        """A message that will not come."""
        self._events.append(["lost", kind, node, reason])

    def deployed(self, node: str, examples: int) -> None:
        """How many windows a node holds."""
        self._events.append(["deployed", node, examples])

    def reliability(self, node: str) -> float:
        """Share of the node's messages that were in order and in time, as the auditor said when it last judged one."""
        return self._reliability.get(node, 1.0)

    def end_round(self) -> None:
        """Both sign their logs' heads."""
        self._show(then="seal")
        self._copy.seal()

    def close(self) -> None:
        """At the end of the training: both logs are complete."""
        self._show(then="close")
        self._copy.close()

    def state(self) -> bytes:
        """For a checkpoint; what the auditor knows stays with it."""
        return json.dumps({"round": self.round, "auditor": self.name}).encode()

    def restore(self, state: bytes) -> None:
        """Take back what `state` gave.

        Raises:
            FederationError: it is that of another auditor.
        """
        found = json.loads(state)
        if not isinstance(found, dict) or found.get("auditor") != self.name:
            raise FederationError(f"the checkpoint is of a training that '{self.name}' did not audit; start the training anew")
        self.round = int(found["round"])
        self._copy.append(Record("note", round=self.round, reason=f"resumed from a checkpoint after round {self.round}"))

    def _show(self, kind: str = "", messages: Mapping[str, Parcel] | None = None, then: Then = "") -> list[Row]:
        """One message to the auditor; what it wrote of it is written here as well."""
        shown = Shown(self._rows, self._events, kind, self.round, messages or {}, then)
        reply = self._answer(closed_up(shown))
        rows: list[Row] = [row_of(row) for row in json.loads(reply.blobs[ROWS])]
        self._events = []
        self._reliability |= json.loads(reply.blobs[RELIABILITY])
        for row in rows:
            self._copy.append(Record(**row))
        self._rows += len(rows)
        return rows

    def _answer(self, parcel: Parcel) -> Parcel:
        """The auditor's signed answer to this very question."""
        self._asked = max(self._asked + 1, time.time_ns() // 1000)
        told: dict[str, Any] = {"sequence": self._asked, "request": self.request, "kind": KIND}
        signed = self._signer.sign(parcel, sender=self._sender, **told)
        tickets = self._channel.send(KIND, {self.name: signed})
        got = self._channel.receive(tickets, until=self._channel.now() + self._wait_s).get(self.name)
        if got is None or got.parcel is None:
            why = "no answer in time" if got is None else got.error
            raise FederationError(f"the auditor '{self.name}' gives no verdict ({why}); without one the training cannot go on")
        try:
            verify(got.parcel, self._key)
            self._heard = newer(got.parcel.values, self._heard, request=self.request, kind=KIND)
        except Refused as error:
            raise FederationError(f"what came as the verdict of the auditor '{self.name}' is not its own: {error}") from error
        if (got.parcel.values.get("sender"), got.parcel.values.get("asked")) != (self.name, self._asked):
            raise FederationError(f"what came from '{self.name}' is its answer to something else; the training cannot go on")
        return got.parcel
