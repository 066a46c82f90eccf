"""What devices and edges report, and the audit log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cellwright.hub.contract.names import (
    MOST_REPORTS,
    Amount,
    Flag,
    Hex,
    Line,
    ModelName,
    Positive,
    Seconds,
    ShortName,
    TenantName,
    VersionName,
    Wire,
)


class FetchReport(Wire):
    """How a device got a model, honestly: what was not measured is None."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]  # chosen by whoever reports; a repeated report counts once
    tenant: TenantName
    model: ModelName
    version: VersionName
    device: ShortName
    time_s: Seconds  # when it ended
    outcome: Literal["activated", "failed", "refused"]
    reason: Line = ""
    seconds: Seconds  # from request to verified
    deadline_s: Positive | None = None
    met: Flag | None = None  # None: no deadline was asked for
    bytes: Amount  # received over the network
    reused_bytes: Amount = 0
    resumed_bytes: Amount = 0
    rate_bit_s: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
    edges: Annotated[tuple[ShortName, ...], Field(max_length=16)] = ()
    delta: Line | None = None  # kind of the delta that was used; None: all of it was downloaded
    qos_session: Line | None = None
    energy_j: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None


class FetchReports(Wire):
    """POST /v1/fetches."""

    reports: Annotated[tuple[FetchReport, ...], Field(max_length=MOST_REPORTS)]


class Counted(Wire):
    """How many reports were new."""

    new: Amount


class QosRecord(Wire):
    """PUT /v1/qos/{session}: a QoS session (CAMARA Quality on Demand) as it stands."""

    session: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    tenant: TenantName
    device: ShortName
    edge: ShortName | None = None
    model: ModelName | None = None
    version: VersionName | None = None
    profile: Line
    asked_by: Literal["edge", "device"]
    status: Literal["REQUESTED", "AVAILABLE", "UNAVAILABLE", "DELETED", "DENIED"]
    status_info: Line = ""
    requested_bit_s: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    started_s: Seconds
    ended_s: Seconds | None = None
    bytes: Amount | None = None


class AuditRow(Wire):
    """One line of the hub's audit log; `hash` is over the line, `previous` in it (a chain)."""

    index: Amount
    time_s: Seconds
    tenant: TenantName
    who: Line  # "<token name> (<token id>)", or "local" for whoever runs commands on the hub itself
    action: Line  # "publish"
    subject: Line  # "city--traffic 1.2.0"
    detail: str
    previous: Hex
    hash: Hex


class AuditVerdict(Wire):
    """GET /v1/audit/verify: whether the whole log is as it was written."""

    ok: Flag
    records: Amount
    head: Hex
    reason: str = ""
