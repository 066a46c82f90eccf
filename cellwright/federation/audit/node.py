"""The auditor as a node of its own (M.3387 8.3.1): it holds its own key, its own log in its own folder, and its own knowledge of nodes.

The coordinator shows it every message ("audit", see shown.py) and takes its verdicts, which it signs. What the auditor saw is in the
auditor's log, which the coordinator never writes: a coordinator that alters its own log is caught by holding the two against each other
(comparing.py). What the coordinator never shows it, or says it sent and did not, the auditor cannot see.

The folder holds audit.jsonl with its head, and auditor.json: what it knows of every node, and whose messages it took last. They outlive
any coordinator, so they are not in the node's state, which a coordinator's checkpoint may set back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellwright.errors import FederationError, Refused
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.chain import LogVerdict, records
from cellwright.federation.audit.log import AuditLog, Record
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.shown import KIND, RELIABILITY, ROWS, Row, Shown, opened, row_of, shared
from cellwright.federation.audit.signing import Signer, newer, verify
from cellwright.federation.contract import NodeState, Parcel
from cellwright.files import write_bytes

LOG, KNOWN = "audit.jsonl", "auditor.json"


class OwnLog(AuditLog):
    """The auditor's log, which keeps the rows of messages that were written last at hand."""

    def __init__(self, path: Path, file: int, found: LogVerdict, signer: Signer | None) -> None:
        self.rows: list[Row] = []
        super().__init__(path, file, found, signer)

    def append(self, record: Record) -> str:
        """Write one record; returns its hash."""
        if shared(vars(record)):
            self.rows.append(row_of(vars(record)))
        return super().append(record)


class AuditorNode:
    """Judges the messages of one request; any process that is given its folder and key can speak for it."""

    def __init__(
        self,
        name: str,
        folder: Path,
        signer: Signer,
        coordinator_key: str,
        rules: Rules,
        keys: Mapping[str, str] | None,
        form: Form,
        *,
        request: str,
    ) -> None:
        """`coordinator_key`: whose questions it answers, Ed25519, hex; `rules`, `keys`, `form`: as an Auditor's."""
        self.name, self.folder, self.request = name, folder, request
        self._signer, self._coordinator_key = signer, coordinator_key
        self._rules, self._keys, self._form = rules, keys, form
        self._work: tuple[Auditor, OwnLog] | None = None
        self._before = 0  # rows that are in the log, and not at hand

    @property
    def public_key(self) -> str:
        """Ed25519, hex."""
        return self._signer.public

    def answer(self, kind: str, parcel: Parcel, state: NodeState) -> Parcel:
        """Take what the coordinator shows, and tell what was written of it.

        Raises:
            Refused: it is not the coordinator's or not new, or the coordinator's log holds more than this auditor wrote.
            FederationError: the auditor's own log or knowledge was altered.
        """
        if kind != KIND:
            raise Refused(f"an auditor does not answer '{kind[:40]}'; it answers {KIND}")
        verify(parcel, self._coordinator_key)
        known = self._known()
        asked = known["seen"] = newer(parcel.values, int(known["seen"]), request=self.request, kind=KIND)
        shown = opened(parcel)
        auditor, log = self._at_work(known)
        self._let_go(shown.have, log)
        _take(auditor, shown)
        rows, reliability = self._since(shown.have, log), {node: auditor.reliability(node) for node in shown.messages}
        known["auditor"] = json.loads(auditor.state())
        known["sent"] = sequence = max(int(known["sent"]) + 1, time.time_ns() // 1000)
        self._end(shown.then, auditor)
        write_bytes(self.folder / KNOWN, json.dumps(known).encode(), mode=0o600)
        reply = Parcel(
            values={"asked": asked}, blobs={ROWS: json.dumps(rows).encode(), RELIABILITY: json.dumps(reliability).encode()}
        )
        return self._signer.sign(reply, sender=self.name, sequence=sequence, request=self.request, kind=KIND)

    def _known(self) -> dict[str, Any]:
        """What its folder holds beside the log."""
        path = self.folder / KNOWN
        if not path.is_file():
            return {"auditor": None, "seen": -1, "sent": 0}
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            return {name: found[name] for name in ("auditor", "seen", "sent")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FederationError(
                f"what the auditor knew is damaged ({error}); move {self.folder} away, and train anew"
            ) from error

    def _at_work(self, known: Mapping[str, Any]) -> tuple[Auditor, OwnLog]:
        """The auditor and its log, as they were left."""
        if self._work is None:
            log = OwnLog.open(self.folder / LOG, self._signer)
            self._before = sum(1 for row in records(log.path) if shared(row)) - len(log.rows)
            auditor = Auditor(self._rules, self._keys, log, self._form, request=self.request)
            if known["auditor"] is not None:
                auditor.restore(json.dumps(known["auditor"]).encode())
            self._work = auditor, log
        return self._work

    def _let_go(self, have: int, log: OwnLog) -> None:
        """Of the rows that the coordinator has by now."""
        wrote = self._before + len(log.rows)
        if have > wrote:
            raise Refused(f"the coordinator's log holds {have} messages, that of {self.name} {wrote}: one of the two was altered")
        if have > self._before:
            del log.rows[: have - self._before]
            self._before = have

    def _since(self, have: int, log: OwnLog) -> list[Row]:
        """Rows that the coordinator does not have: more than were just written, where it was killed before it wrote them."""
        if have == self._before:
            return log.rows
        return [row_of(row) for row in records(log.path) if shared(row)][have:]

    def _end(self, then: str, auditor: Auditor) -> None:
        if then == "seal":
            auditor.end_round()
        elif then == "close":
            auditor.close()
            self._work = None


def _take(auditor: Auditor, shown: Shown) -> None:
    """Write and judge what is shown, in its order."""
    for name, *told in shown.events:
        if name == "sent":
            kind, node, round_, digest = told
            auditor.sent_as(str(kind), str(node), str(digest), round_=int(round_))
        elif name in ("late", "lost"):
            kind, node, reason = told
            (auditor.late if name == "late" else auditor.lost)(str(node), kind=str(kind), reason=str(reason))
        elif name == "deployed":
            node, examples = told
            auditor.deployed(str(node), int(examples))
        else:
            raise Refused(f"an auditor knows no event '{str(name)[:40]}'")
    if shown.messages:
        auditor.check_round(shown.kind, shown.messages, round_=shown.round)
