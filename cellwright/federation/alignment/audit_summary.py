"""What the auditor said of a vertical or a transfer federation, counted from its log."""

from __future__ import annotations

from pathlib import Path

from cellwright.errors import FederationError
from cellwright.results import Result


class AuditSummary(Result):
    """What the auditor said of a run's messages, as its log tells."""

    log: str  # its file, seen from the run's folder
    head: str  # hash of its last record
    key: str  # Ed25519 public key of the coordinator, hex
    records: int
    sent: int  # messages of the coordinator
    accepted: int  # messages of the parties
    refused: int
    missed: int  # late, or lost


def summary(folder: Path, log: Path, key: str) -> AuditSummary:
    """What a closed log tells; `folder`: the run's.

    Raises:
        FederationError: it was altered meanwhile.
    """
    from cellwright.federation.audit.chain import records, verify_log

    found = verify_log(log, key)
    if not found.ok:
        raise FederationError(f"the audit log {log} is not as it was written: {found.summary}")
    verdicts = [str(row["verdict"]) for row in records(log)]
    counted = {name: verdicts.count(name) for name in ("sent", "accepted", "refused")}
    missed = verdicts.count("late") + verdicts.count("lost")
    return AuditSummary(
        log=log.relative_to(folder).as_posix(), head=found.head, key=key, records=found.records, missed=missed, **counted
    )
