"""Doors of matching, grants, reports and audit."""

from __future__ import annotations

from collections.abc import Sequence

from cellwright.hub import contract as c
from cellwright.hub.doors.base import Asking


class Reports(Asking):
    """Matching, grants, reports and audit."""

    def match(self, ask: c.MatchAsk) -> c.MatchAnswer:
        """The model that a device needs here and now, where to get it and the leave to."""
        return self._post("/v1/match", ask, c.MatchAnswer)

    def grant(self, ask: c.GrantAsk) -> c.GrantAnswer:
        """Leave for a device to fetch this tenant's models from any edge."""
        return self._post("/v1/grants", ask, c.GrantAnswer)

    def revoke_grants(self) -> float:
        """Take back all grants on this tenant's models: edges believe those from now on only. Returns since when."""
        return self._parsed(self._send("DELETE", "/v1/grants"), c.GrantsRevoked).grants_from_s

    def revoke_grant(self, grant: str) -> c.Revocation:
        """Take back one grant, by its id."""
        return self._parsed(self._send("DELETE", f"/v1/grants/{grant}"), c.Revocation)

    def revoke_device(self, device: str) -> c.Revocation:
        """Take back what a device was given until now."""
        return self._parsed(self._send("DELETE", f"/v1/devices/{device}/grants"), c.Revocation)

    def revocations(self) -> tuple[c.Revocation, ...]:
        """What this tenant took back by name, and has not expired since."""
        return self._get("/v1/revocations", tuple[c.Revocation, ...])

    def report(self, reports: Sequence[c.FetchReport]) -> int:
        """Hand in fetch reports, in parts of at most `MOST_REPORTS`; returns how many were new to the hub."""
        parts = [reports[at : at + c.MOST_REPORTS] for at in range(0, len(reports), c.MOST_REPORTS)]
        return sum(
            self._parsed(
                self._send("POST", "/v1/fetches", json=c.FetchReports(reports=tuple(part)).model_dump(mode="json")),
                c.Counted,
            ).new
            for part in parts
        )

    def fetches(self, *, model: str | None = None, since_s: float = 0.0, limit: int = 100) -> tuple[c.FetchReport, ...]:
        """Fetch reports of this tenant, the newest first."""
        params = {"since_s": str(since_s), "limit": str(limit)} | ({"model": model} if model else {})
        return self._get("/v1/fetches", tuple[c.FetchReport, ...], params)

    def record_qos(self, record: c.QosRecord) -> c.QosRecord:
        """Record how a QoS session stands."""
        return self._put(f"/v1/qos/{record.session}", record, c.QosRecord)

    def qos(self, *, limit: int = 100) -> tuple[c.QosRecord, ...]:
        """QoS sessions of this tenant, the newest first."""
        return self._get("/v1/qos", tuple[c.QosRecord, ...], {"limit": str(limit)})

    def audit(self, *, after: int = -1, limit: int = 100) -> tuple[c.AuditRow, ...]:
        """Audit rows after an index: of this tenant; of all for the operator."""
        return self._get("/v1/audit", tuple[c.AuditRow, ...], {"after": str(after), "limit": str(limit)})

    def verify_audit(self, head: str | None = None) -> c.AuditVerdict:
        """Whether the hub's whole audit log is as it was written, and (`head`) still has the row of that hash (operator)."""
        return self._get("/v1/audit/verify", c.AuditVerdict, {"head": head} if head else None)
