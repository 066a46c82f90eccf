"""What devices and edges report: fetches, QoS sessions; and who may read the audit log."""

from __future__ import annotations

import sqlalchemy as sa

from cellwright.database import upsert
from cellwright.hub import audit, tables
from cellwright.hub.contract import AuditRow, AuditVerdict, FetchReport, QosRecord
from cellwright.hub.core import Core, Who
from cellwright.hub.refusals import NotAllowed
from cellwright.hub.tenants import quota_of

_MOST_ROWS = 1_000


class Reports(Core):
    """Take and show reports."""

    def report(self, who: Who, reports: tuple[FetchReport, ...]) -> int:
        """Keep fetch reports; one that is there already counts once. Returns how many were new.

        Edges hand in what many devices told them. Whoever else reports has each report counted as a request, so that a device that
        lies fills the database no faster than its tenant may ask.

        Raises:
            NotAllowed: a device reports of another tenant.
            TooMany: the tenant's quota of requests is used up.
        """
        t = tables.fetches
        for found in reports:
            _refuse_foreign(who, found.tenant)
        if len(reports) > 1 and not who.scopes & {"edge", "operator"}:
            with self.store.read() as connection:
                per_minute = quota_of(connection, who.tenant).requests_per_minute
            self.count(who.tenant, per_minute, len(reports) - 1)  # the request itself was counted
        new, now = 0, self.clock()
        with self.store.write() as connection:
            tenants = set(connection.execute(sa.select(tables.tenants.c.name)).scalars())
            for found in reports:
                same = (t.c.tenant == found.tenant, t.c.id == found.id)
                if found.tenant not in tenants or connection.execute(sa.select(t.c.id).where(*same)).first():
                    continue
                values = {"tenant": found.tenant, "id": found.id, "model": found.model, "time_s": found.time_s, "received_s": now}
                connection.execute(sa.insert(t).values(**values, reported_by=who.name, document=found.model_dump_json()))
                new += 1
        return new

    def fetches(self, who: Who, *, model: str | None = None, since_s: float = 0.0, limit: int = 100) -> tuple[FetchReport, ...]:
        """Fetch reports of the asking tenant, the newest first."""
        t = tables.fetches
        wanted = sa.select(t.c.document).where(t.c.tenant == who.tenant, t.c.time_s >= since_s)
        wanted = wanted if model is None else wanted.where(t.c.model == model)
        wanted = wanted.order_by(t.c.time_s.desc(), t.c.id).limit(min(limit, _MOST_ROWS))
        with self.store.read() as connection:
            return tuple(FetchReport.model_validate_json(row) for row in connection.execute(wanted).scalars())

    def record_qos(self, who: Who, record: QosRecord) -> QosRecord:
        """Keep how a QoS session stands. Raises NotAllowed."""
        _refuse_foreign(who, record.tenant)
        keys = {"tenant": record.tenant, "session": record.session}
        with self.store.write() as connection:
            values = {"started_s": record.started_s, "received_s": self.clock(), "document": record.model_dump_json()}
            upsert(connection, tables.qos, keys, values)
        return record

    def qos(self, who: Who, *, limit: int = 100) -> tuple[QosRecord, ...]:
        """QoS sessions of the asking tenant, the newest first."""
        t = tables.qos
        wanted = sa.select(t.c.document).where(t.c.tenant == who.tenant).order_by(t.c.started_s.desc(), t.c.session)
        with self.store.read() as connection:
            found = connection.execute(wanted.limit(min(limit, _MOST_ROWS))).scalars()
            return tuple(QosRecord.model_validate_json(row) for row in found)

    def audit(self, who: Who, *, after: int = -1, limit: int = 100) -> tuple[AuditRow, ...]:
        """Audit rows after an index: of the asking tenant; of all for an operator."""
        t = tables.tenants
        with self.store.read() as connection:
            if who.operator:
                return audit.rows(connection, tenant=None, after=after, limit=min(limit, _MOST_ROWS))
            since_s = connection.execute(sa.select(t.c.created_s).where(t.c.name == who.tenant)).scalar_one()
            return audit.rows(connection, tenant=who.tenant, after=after, limit=min(limit, _MOST_ROWS), since_s=since_s)

    def verify_audit(self, head: str | None = None) -> AuditVerdict:
        """Whether the whole log is as it was written."""
        with self.store.read() as connection:
            return audit.verify(connection, head)


def _refuse_foreign(who: Who, tenant: str) -> None:
    """An edge serves all tenants and reports for each; everybody else for their own."""
    if tenant != who.tenant and not who.scopes & {"edge", "operator"}:
        raise NotAllowed(f"the token is of tenant '{who.tenant}', which cannot report for another")
