"""The hub's audit log: append-only rows, each with the hash of the one before (the chain of federation/audit), in the transaction
of the change that it tells of, so that neither is there without the other.

Whoever can write the database can write the log anew; a hash of its end kept elsewhere (`cellwright hub audit --head`) finds that.
"""

from __future__ import annotations

import hmac
import json
from itertools import islice

import sqlalchemy as sa

from cellwright.federation.audit.chain import START, line_of
from cellwright.hub import tables
from cellwright.hub.contract import AuditRow, AuditVerdict

_LONGEST_DETAIL = 4_000  # characters
_BATCH = 1_000


def append(connection: sa.Connection, *, time_s: float, tenant: str, who: str, action: str, subject: str, detail: str) -> None:
    """Write a row; within a transaction that writes, so that rows take turns."""
    last = connection.execute(sa.select(tables.audit.c.index, tables.audit.c.hash).order_by(tables.audit.c.index.desc()).limit(1))
    index, previous = last.one_or_none() or (-1, START)
    fields = {
        "time_s": round(time_s, 3),
        "tenant": tenant,
        "who": who,
        "action": action,
        "subject": subject,
        "detail": detail[:_LONGEST_DETAIL],
    }
    line, digest = line_of(fields, index + 1, previous)
    connection.execute(sa.insert(tables.audit).values(index=index + 1, tenant=tenant, line=line.decode(), hash=digest))


def rows(connection: sa.Connection, *, tenant: str | None, after: int, limit: int, since_s: float = 0.0) -> tuple[AuditRow, ...]:
    """Rows after an index, from `since_s` on (whoever had a tenant's name before is not told of); `tenant` None: of all."""
    t = tables.audit
    wanted = sa.select(t.c.line).where(t.c.index > after).order_by(t.c.index)
    wanted = wanted if tenant is None else wanted.where(t.c.tenant == tenant)
    wanted = wanted if since_s else wanted.limit(limit)
    found = (AuditRow.model_validate(json.loads(line)) for line in connection.execute(wanted).scalars())
    return tuple(islice((row for row in found if row.time_s >= round(since_s, 3)), limit))


def verify(connection: sa.Connection, head: str | None = None) -> AuditVerdict:
    """Whether every row is there, in order and as it was written. `head`: a hash that a row must have, noted earlier."""
    index, previous, seen = 0, START, head in (None, START)
    while batch := rows(connection, tenant=None, after=index - 1, limit=_BATCH):
        for row in batch:
            if fault := _fault(connection, row, index, previous):
                return AuditVerdict(ok=False, records=index, head=previous, reason=fault)
            index, previous = index + 1, row.hash
            seen = seen or hmac.compare_digest(previous, str(head))
    if not seen:
        return AuditVerdict(
            ok=False, records=index, head=previous, reason="no row has the hash that is known: the log was replaced"
        )
    return AuditVerdict(ok=True, records=index, head=previous)


def _fault(connection: sa.Connection, row: AuditRow, index: int, previous: str) -> str:
    """What is wrong with a row that should be number `index`; "": nothing."""
    if row.index != index or row.previous != previous:
        return f"row {index} is missing or was moved: found row {row.index}"
    stored = connection.execute(sa.select(tables.audit).where(tables.audit.c.index == index)).mappings().one()
    fields = row.model_dump(include={"time_s", "tenant", "who", "action", "subject", "detail"})
    line, digest = line_of(fields, index, previous)
    same = (stored["line"], stored["hash"], stored["tenant"]) == (line.decode(), digest, row.tenant)
    return "" if same and row.hash == digest else f"row {index} is not what was hashed: it was altered"
