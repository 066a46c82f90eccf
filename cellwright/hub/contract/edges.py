"""Areas, edges, and what edges shall hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cellwright.hub.contract.models import Terms
from cellwright.hub.contract.names import (
    Amount,
    Digest,
    Flag,
    GrantId,
    Line,
    ModelName,
    Seconds,
    ShortName,
    TenantName,
    Told,
    VersionName,
    Wire,
)


class Location(Wire):
    """WGS 84 degrees."""

    longitude: Annotated[float, Field(strict=True, ge=-180, le=180, allow_inf_nan=False)]
    latitude: Annotated[float, Field(strict=True, ge=-90, le=90, allow_inf_nan=False)]


class AreaForm(Wire):
    """PUT /v1/areas/{area}: a GeoJSON geometry (Polygon or MultiPolygon; RFC 7946), longitude first."""

    geometry: dict[str, Any]
    title: Line = ""


class Area(AreaForm):
    """An area of a tenant, or one of the operator's, which all may use."""

    tenant: TenantName
    name: ShortName


class EdgeForm(Wire):
    """PUT /v1/edges/{edge}: an edge tells of itself."""

    url: Annotated[str, Field(max_length=500, pattern=r"^https?://[^\s/?#]+/?$")]
    location: Location
    disk_bytes: Amount  # that models may fill
    zone: ShortName | None = None  # edge cloud zone (CAMARA Simple Edge Discovery)
    provider: Line = ""  # edge cloud provider, as Simple Edge Discovery tells it


class Held(Wire):
    """A version that an edge has, verified."""

    tenant: TenantName
    model: ModelName
    version: VersionName
    digest: Digest
    bytes: Amount = 0
    requests: Amount = 0  # since the last heartbeat; popularity


class Heartbeat(Wire):
    """PUT /v1/edges/{edge}/heartbeat, about every 10 s."""

    revision: Amount  # of the desired state that it has put into effect
    time_s: Seconds  # by the edge's own clock
    disk_free_bytes: Amount
    held: Annotated[tuple[Held, ...], Field(max_length=10_000)] = ()
    problems: Annotated[tuple[Line, ...], Field(max_length=100)] = ()  # "disk full: 3 versions are not held"
    energy_j: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None  # since it started; None: no meter
    energy_source: Literal["measured", "modelled", "constant"] | None = None


class HeartbeatAnswer(Wire):
    """What the hub says back."""

    revision: Amount  # that the edge should have
    clock_skew_s: float  # the edge's clock minus the hub's


class Edge(EdgeForm):
    """An edge as others see it; `heartbeat` is told to operators only."""

    name: ShortName
    registered_s: Seconds
    seen_s: Seconds | None
    alive: Flag
    revision: Amount
    heartbeat: Heartbeat | None = None


class DesiredVersion(Wire):
    """A version that an edge shall hold."""

    version: VersionName
    digest: Digest
    bytes: Amount
    weight: Annotated[float, Field(strict=True, ge=0, le=1)]  # share of requests; 0: held for download only
    pinned: Flag  # never evicted


class DesiredModel(Wire):
    """A model that an edge shall hold. `latest`: the version in use, which "latest" means."""

    name: ModelName
    latest: VersionName
    canary: VersionName | None = None
    terms: Terms | None = None  # of the canary's trial
    priority: int = 0  # the highest of the rules that put it there; evicted last
    versions: tuple[DesiredVersion, ...]


class DesiredTenant(Wire):
    """A tenant's shelf. `keys` (PEM): whose signatures are believed on it; the hub's key is the first."""

    tenant: TenantName
    keys: tuple[str, ...]
    models: tuple[DesiredModel, ...]
    grants_from_s: Seconds = 0.0  # grants that became valid before were taken back
    revoked_devices: dict[ShortName, Seconds] = Field(default_factory=dict)  # of these devices, those that became valid before …
    revoked_grants: tuple[GrantId, ...] = ()  # … and these


class Desired(Told):
    """GET /v1/edges/{edge}/desired: all that an edge shall hold. Equal revisions mean equal states."""

    edge: ShortName
    revision: Amount
    hub_key: str  # PEM; verifies grants
    tenants: tuple[DesiredTenant, ...] = ()
