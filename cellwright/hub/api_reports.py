"""Matching, grants, reports and audit over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from cellwright.errors import HubRefused
from cellwright.hub import contract as c
from cellwright.hub.access import Auditor, Matcher, Operator, Reader, Reporter, TheHub, Writer

router = APIRouter(prefix="/v1")
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("/match", tags=["matching"], summary="Which model a device needs here and now, and why")
def match(hub: TheHub, who: Matcher, ask: c.MatchAsk) -> c.MatchAnswer:
    return hub.match(who, ask)


@router.post("/grants", tags=["matching"], summary="Leave for a device to fetch this tenant's models")
def grant(hub: TheHub, who: Matcher, ask: c.GrantAsk) -> c.GrantAnswer:
    return hub.grant(who, ask)


@router.delete("/grants", tags=["matching"], summary="Take back all grants on this tenant's models")
def revoke_grants(hub: TheHub, who: Writer) -> c.GrantsRevoked:
    return c.GrantsRevoked(grants_from_s=hub.revoke_grants(who, who.tenant))


@router.delete("/grants/{grant}", tags=["matching"], summary="Take back one grant, by its id")
def revoke_grant(hub: TheHub, who: Writer, grant: Annotated[c.GrantId, Path()]) -> c.Revocation:
    return hub.revoke_grant(who, grant)


@router.delete("/devices/{device}/grants", tags=["matching"], summary="Take back what a device was given until now")
def revoke_device(hub: TheHub, who: Writer, device: Annotated[c.ShortName, Path()]) -> c.Revocation:
    return hub.revoke_device(who, device)


@router.get("/revocations", tags=["matching"], summary="What was taken back by name, and has not expired since")
def revocations(hub: TheHub, who: Writer) -> tuple[c.Revocation, ...]:
    return hub.revocations(who)


@router.post("/fetches", tags=["reports"], summary="Fetch reports of devices; a repeated one counts once")
def report(hub: TheHub, who: Reporter, form: c.FetchReports) -> c.Counted:
    return c.Counted(new=hub.report(who, form.reports))


@router.get("/fetches", tags=["reports"], summary="Fetch reports of this tenant, the newest first")
def fetches(
    hub: TheHub,
    who: Reader,
    model: c.ModelName | None = None,
    since_s: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0,
    limit: Limit = 100,
) -> tuple[c.FetchReport, ...]:
    return hub.fetches(who, model=model, since_s=since_s, limit=limit)


@router.put("/qos/{session}", tags=["reports"], summary="How a QoS session stands")
def record_qos(hub: TheHub, who: Reporter, session: Annotated[str, Path(max_length=64)], record: c.QosRecord) -> c.QosRecord:
    if record.session != session:
        raise HubRefused(f"the address names session '{session}', the record '{record.session}'; they must be equal")
    return hub.record_qos(who, record)


@router.get("/qos", tags=["reports"], summary="QoS sessions of this tenant, the newest first")
def qos(hub: TheHub, who: Reader, limit: Limit = 100) -> tuple[c.QosRecord, ...]:
    return hub.qos(who, limit=limit)


@router.get("/audit", tags=["audit"], summary="The audit log: of this tenant; of all for an operator")
def audit(
    hub: TheHub, who: Auditor, after: Annotated[int, Query(ge=-1, le=1 << 62)] = -1, limit: Limit = 100
) -> tuple[c.AuditRow, ...]:
    return hub.audit(who, after=after, limit=limit)


@router.get("/audit/verify", tags=["audit"], summary="Whether the whole log is as it was written (operator)")
def verify_audit(hub: TheHub, _who: Operator, head: c.Hex | None = None) -> c.AuditVerdict:
    return hub.verify_audit(head)
