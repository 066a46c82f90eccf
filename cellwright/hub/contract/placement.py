"""Where models lie and whom they are for; matching, and grants."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from cellwright.hub.contract.edges import Location
from cellwright.hub.contract.names import (
    DAYS,
    Amount,
    Day,
    Digest,
    Flag,
    GrantId,
    Line,
    ModelName,
    Positive,
    Seconds,
    ShortName,
    TenantName,
    Told,
    VersionName,
    Wire,
    _number,
)


class Hours(Wire):
    """A stretch of the day; over midnight where `stop` is not after `start`."""

    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "00:00"
    stop: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")] = "24:00"
    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7)] = DAYS


class PlacementForm(Wire):
    """PUT /v1/placement/{rule}: where a model lies and whom it is for. Empty: any."""

    model: ModelName
    owner: TenantName | None = None  # of a shared model; None: the rule's own tenant
    areas: Annotated[tuple[ShortName, ...], Field(max_length=100)] = ()
    edges: Annotated[tuple[ShortName, ...], Field(max_length=1000)] = ()
    services: Annotated[tuple[ShortName, ...], Field(max_length=100)] = ()
    user_classes: Annotated[tuple[ShortName, ...], Field(max_length=100)] = ()
    hours: Annotated[tuple[Hours, ...], Field(max_length=14)] = ()
    timezone: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")] = "UTC"  # of `hours`, an IANA name
    priority: Annotated[int, Field(ge=-1000, le=1000), BeforeValidator(_number)] = 0  # the highest that fits wins
    pinned: Flag = False

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"'{name}' is no IANA time zone") from None
        return name


class PlacementRule(PlacementForm):
    """A rule of a tenant."""

    tenant: TenantName
    name: ShortName


class Requirements(Wire):
    """Asking by requirement: "a traffic forecast, under 5 ms, under 10 MB"."""

    task: Line
    latency_ms: Positive | None = None  # at most
    bytes: Annotated[int, Field(ge=1), BeforeValidator(_number)] | None = None  # at most
    error: Positive | None = None  # at most
    error_unit: Line | None = None  # that `error` is in; a model of another unit does not fit
    formats: Annotated[tuple[Line, ...], Field(max_length=10)] = ()  # that the device can run; empty: any


class MatchAsk(Wire):
    """POST /v1/match: which model does this device need, here and now."""

    device: ShortName
    service: ShortName | None = None
    user_class: ShortName | None = None
    location: Location | None = None
    time_s: Seconds | None = None  # None: now
    requirements: Requirements | None = None


class Considered(Wire):
    """A model that was looked at, and why it was taken or not."""

    tenant: TenantName
    model: ModelName
    version: VersionName | None
    rule: ShortName | None = None
    chosen: Flag
    reason: Line


class NearEdge(Wire):
    """An edge that shall hold the model; the nearest that holds it first."""

    name: ShortName
    url: str
    zone: ShortName | None
    provider: Line = ""
    distance_m: float | None  # None: the device did not say where it is
    holds: Flag  # whether its last heartbeat said that it has this very version


class MatchAnswer(Told):
    """The best release and why; `grant` is what edges ask for (grant.py)."""

    tenant: TenantName
    model: ModelName
    version: VersionName
    digest: Digest
    bytes: Amount
    format: Line
    rule: ShortName | None
    why: Line
    considered: tuple[Considered, ...]
    edges: tuple[NearEdge, ...]
    keys: tuple[str, ...]  # PEM; whose signatures to believe on this model
    grant: str
    grant_expires_s: Seconds


class GrantAsk(Wire):
    """POST /v1/grants: leave for a device to fetch models of the asking tenant from any edge."""

    device: ShortName
    models: Annotated[tuple[ModelName | Literal["*"], ...], Field(min_length=1, max_length=64)] = ("*",)
    lifetime_s: Annotated[float, Field(strict=True, ge=1, le=86_400)] = 3_600
    truth: Flag = False  # also leave to tell edges what was measured, which rollouts are judged by; needs the scope truth too


class GrantAnswer(Told):
    """A grant, and the keys to believe."""

    grant: str
    expires_s: Seconds
    keys: tuple[str, ...]


class GrantsRevoked(Wire):
    """DELETE /v1/grants: all grants on a tenant's models that became valid before were taken back."""

    grants_from_s: Seconds


class Revocation(Wire):
    """Grants that were taken back by name: one by its id, or those of a device that became valid before `from_s`."""

    kind: Literal["grant", "device"]
    name: GrantId | ShortName
    from_s: Seconds
    until_s: Seconds  # all that it means have expired by then, and it is forgotten
