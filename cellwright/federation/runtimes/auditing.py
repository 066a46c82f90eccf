"""The auditor of a job: of the coordinator's process, or a node of its own where the job names one (M.3387 8.3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cellwright.errors import FederationError
from cellwright.federation.audit.auditor import Auditor
from cellwright.federation.audit.distant import DistantAuditor
from cellwright.federation.audit.log import AuditLog
from cellwright.federation.audit.node import AuditorNode
from cellwright.federation.audit.rules import Form, Rules
from cellwright.federation.audit.signing import Signer
from cellwright.federation.contract import Spec
from cellwright.federation.management.records import Name
from cellwright.federation.runtimes.local import open_channel


class Seat(Spec):
    """Where an auditor's node keeps what is its own."""

    name: Name
    folder: str  # its log, and what it knows of nodes; of this request alone
    signing: str  # file of its Ed25519 key
    public_key: str  # of that key, hex: whose verdicts the coordinator believes


def auditor_of(
    seat: Seat | None,
    rules: Rules,
    keys: Mapping[str, str] | None,
    log: AuditLog,
    form: Form,
    *,
    request: str,
    coordinator: str,
    signer: Signer | None,
) -> Auditor:
    """The auditor that a coordinator works under; `log`: the coordinator's own.

    Raises:
        FederationError: a node audits, and the coordinator has no key to ask it with, or the node another than its registered one.
    """
    if seat is None:
        return Auditor(rules, keys, log, form, request=request)
    if signer is None:
        raise FederationError(f"the auditor '{seat.name}' answers only a coordinator that signs; set federation.audit to true")
    own = Signer.from_file(Path(seat.signing))
    node = AuditorNode(seat.name, Path(seat.folder), own, signer.public, rules, keys, form, request=request)
    if node.public_key != seat.public_key:
        raise FederationError(
            f"the key of the auditor '{seat.name}' in {seat.signing} is {node.public_key[:16]}…, registered is {seat.public_key[:16]}…; "
            "give it the key that its public_key is of, or correct that in federation.nodes"
        )
    channel = open_channel({seat.name: node}, clock="wall")
    return DistantAuditor(channel, seat.name, seat.public_key, signer, rules, log, sender=coordinator, request=request)
