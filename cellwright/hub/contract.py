"""What travels between hub, edges, devices and people: JSON in, JSON out; frozen.

Unknown keys of what somebody asks for are refused: a typo must not pass. Of what the hub answers they are ignored by whoever reads it
(`told`), so that a newer hub can say more; what must not be ignored raises the `protocol` of its document (`Told`), which is checked.

Times are seconds since 1970 (UTC), places are WGS 84 degrees, sizes bytes. A `tenant` owns models; the operator is a tenant too
(`OPERATOR`), whose areas all may use. `Desired` is what an edge shall hold; the edge pulls it, nothing is pushed at it.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

OPERATOR = "operator"
MOST_REPORTS = 1_000  # in one POST /v1/fetches
LONGEST_WAIT_S = 60.0  # of a long poll
_VERSION = r"^\d{1,9}\.\d{1,9}\.\d{1,9}(?:-[0-9A-Za-z.-]{1,64})?(?:\+[0-9A-Za-z.-]{1,64})?$"  # as cellwright/bundle/manifest.py


def _place(text: str) -> str:
    """No dot alone, so that no name climbs out of a folder or an address."""
    if text.strip(".") == "":
        raise ValueError("must not consist of dots")
    return text


TenantName = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}$"), AfterValidator(_place)]
VersionName = Annotated[str, Field(pattern=_VERSION)]
ShortName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]  # of an area, an edge, a rule, a device
FileName = ModelName
Line = Annotated[str, Field(max_length=500)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Amount = Annotated[int, Field(ge=0, le=1 << 62)]
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scope = Literal[
    "operator",
    "models:read",
    "models:write",
    "placement:write",
    "audit:read",
    "metrics:read",
    "edge",
    "device",
    "publish",
    "truth",
]
Format = Literal["onnx", "safetensors", "modelpack", "opaque"]
Visibility = Literal["private", "shared"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
GrantId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
PROTOCOL = 1  # the newest that is known here, of documents that hubs tell
_Kind = TypeVar("_Kind")


class Wire(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Told(Wire):
    """What a hub tells edges and devices, which may be older than it is. It writes the lowest `protocol` that says all: only a document
    with a key that nobody may ignore has a higher one."""

    protocol: Annotated[int, Field(ge=1)] = PROTOCOL

    @model_validator(mode="before")
    @classmethod
    def _is_known(cls, said: Any) -> Any:
        """Before all else, which may be of other forms in a newer one."""
        found = said.get("protocol", PROTOCOL) if isinstance(said, dict) else PROTOCOL
        if isinstance(found, int) and found > PROTOCOL:
            raise ValueError(
                f"the hub speaks protocol {found}, known here is {PROTOCOL}; the hub is newer: update Cellwright here"
            )
        return said


def told(kind: type[_Kind], content: bytes) -> _Kind:
    """What a hub answered, perhaps a newer one: keys that are not known here are ignored. Raises ValidationError."""
    return TypeAdapter(kind).validate_json(content, extra="ignore")


# Tenants, tokens, keys


class Quota(Wire):
    """The most that a tenant may have."""

    bytes: Amount = 50 * 1024**3  # of its releases and open uploads
    models: Amount = 1_000
    uploads: Amount = 8  # open at once
    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] = 6_000


class Usage(Wire):
    """What a tenant has."""

    bytes: Amount
    models: Amount
    releases: Amount
    uploads: Amount


class TenantForm(Wire):
    """PUT /v1/tenants/{tenant}."""

    title: Line = ""
    quota: Quota = Quota()


class Tenant(TenantForm):
    """A tenant as the operator sees it; `GET /v1/tenant` shows a tenant itself."""

    name: TenantName
    created_s: Seconds
    usage: Usage


class TokenForm(Wire):
    """POST /v1/tenants/{tenant}/tokens. `name`: of the person, edge or device that it stands for."""

    name: ShortName
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=10)]
    lifetime_s: Annotated[float, Field(gt=0, le=1e10)] | None = None  # None: until it is revoked


class Token(Wire):
    """A token without its secret."""

    id: str
    tenant: TenantName
    name: ShortName
    scopes: tuple[Scope, ...]
    created_s: Seconds
    expires_s: Seconds | None
    revoked_s: Seconds | None = None


class NewToken(Token):
    """A token with its secret, told once."""

    token: str


class KeyForm(Wire):
    """POST /v1/keys: a public key whose signatures on this tenant's ModelPack bundles are believed."""

    pem: Annotated[str, Field(max_length=4096)]


class PublicKey(Wire):
    """An Ed25519 public key."""

    id: Hex
    pem: str


# Models, releases, uploads


class Figures(Wire):
    """What a model is good for; matching by requirement goes by it. None: not stated, and no requirement on it is met."""

    task: Line | None = None  # "traffic forecast"
    latency_ms: Positive | None = None
    error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # in the model's own unit (`error_unit`)
    error_unit: Line | None = None


class ModelForm(Wire):
    """PUT /v1/models/{model}."""

    title: Line = ""
    description: Annotated[str, Field(max_length=4_000)] = ""
    visibility: Visibility = "private"
    figures: Figures = Figures()


class Terms(Wire):
    """How a version under trial is watched; as a rollout's parameters say (params.Rollout)."""

    sites: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=1_000)] = ()  # its own
    shadow: Annotated[float, Field(ge=0, le=1)] = 1.0  # share of requests that both versions compute, to compare their errors
    latency_ms: Annotated[float, Field(gt=0, le=3_600_000)] = 10.0  # an answer later than this counts as late
    since_s: Seconds | None = None  # what is counted is counted from this beginning on; None: from when an edge hears of it


class Publication(Wire):
    """Which version of a model is in use, and the shares of requests that versions under trial get."""

    version: VersionName
    weights: dict[VersionName, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, max_length=8
    )  # 0: held, computes
    canary: VersionName | None = None  # the version under trial, one of `weights`
    terms: Terms | None = None  # of the canary's trial; None: an edge's own

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        """Other versions' weights leave the rest to `version`; where it is named too, all add up to 1."""
        total = math.fsum(self.weights.values())
        if self.version in self.weights and not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"weights must add up to 1, found {total:g}")
        if self.version not in self.weights and total >= 1:
            raise ValueError(f"weights of other versions must leave something to {self.version}, found {total:g}")
        if self.canary is not None and (self.canary == self.version or self.canary not in self.weights):
            raise ValueError("canary must be one of weights, and another version than the one in use")
        if self.terms is not None and self.canary is None:
            raise ValueError("terms are of a canary's trial; name the canary too")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Version -> share of the requests; they add up to 1."""
        rest = {} if self.version in self.weights else {self.version: 1 - math.fsum(self.weights.values())}
        return {**self.weights, **rest}


class Published(Publication):
    """A publication as it stands; `number` grows with each change. `If-Match: "<number>"` lets one of two publishers win."""

    model: ModelName
    number: Amount
    published_s: Seconds
    by: Line
    edges: tuple[ShortName, ...] = ()  # that shall hold it now


class Model(ModelForm):
    """A model as its tenant sees it, or as others see a shared one."""

    tenant: TenantName
    name: ModelName
    created_s: Seconds
    versions: tuple[VersionName, ...]
    publication: Published | None = None


class ReleaseFile(Wire):
    """A file of a release's OCI layout."""

    path: str
    bytes: Amount
    sha256: Hex
    media_type: str


class Release(Wire):
    """One immutable version of a model: a signed OCI image layout."""

    tenant: TenantName
    model: ModelName
    version: VersionName
    digest: Digest  # of the model manifest
    format: Line  # "forecast" (a forecasting bundle), "onnx", "safetensors", "opaque", or what a ModelPack says
    bytes: Amount  # of all files
    signed_by: Hex
    created_s: Seconds
    figures: Figures = Figures()
    files: tuple[ReleaseFile, ...]
    layers: dict[str, Digest]  # file name -> digest of its blob


class UploadForm(Wire):
    """POST /v1/uploads. With tus 1.0's headers instead: Upload-Length, and the other fields as Upload-Metadata."""

    model: ModelName
    version: VersionName
    format: Format
    bytes: Annotated[int, Field(ge=1, le=1 << 43)]
    sha256: Hex | None = None  # of the whole file; compared when the last byte is there
    filename: FileName | None = None  # of the layer; None: after the format ("model.onnx")
    title: Line = ""
    description: Annotated[str, Field(max_length=4_000)] = ""
    figures: Figures = Figures()


class Upload(Wire):
    """An upload on its way."""

    id: str
    form: UploadForm
    offset: Amount
    created_s: Seconds
    expires_s: Seconds


# Areas, edges, desired state


class Location(Wire):
    """WGS 84 degrees."""

    longitude: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
    latitude: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]


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
    energy_j: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # since it started; None: no meter
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
    alive: bool
    revision: Amount
    heartbeat: Heartbeat | None = None


class DesiredVersion(Wire):
    """A version that an edge shall hold."""

    version: VersionName
    digest: Digest
    bytes: Amount
    weight: Annotated[float, Field(ge=0, le=1)]  # share of requests; 0: held for download only
    pinned: bool  # never evicted


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


# Placement, matching


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
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0  # the highest that fits wins
    pinned: bool = False

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
    bytes: Annotated[int, Field(ge=1)] | None = None  # at most
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
    chosen: bool
    reason: Line


class NearEdge(Wire):
    """An edge that shall hold the model; the nearest that holds it first."""

    name: ShortName
    url: str
    zone: ShortName | None
    provider: Line = ""
    distance_m: float | None  # None: the device did not say where it is
    holds: bool  # whether its last heartbeat said that it has this very version


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
    lifetime_s: Annotated[float, Field(ge=1, le=86_400)] = 3_600
    truth: bool = False  # also leave to tell edges what was measured, which rollouts are judged by; needs a token of scope truth


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


# Reports


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
    met: bool | None = None  # None: no deadline was asked for
    bytes: Amount  # received over the network
    reused_bytes: Amount = 0
    resumed_bytes: Amount = 0
    rate_bit_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    edges: Annotated[tuple[ShortName, ...], Field(max_length=16)] = ()
    delta: Line | None = None  # kind of the delta that was used; None: all of it was downloaded
    qos_session: Line | None = None
    energy_j: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


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
    requested_bit_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
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

    ok: bool
    records: Amount
    head: Hex
    reason: str = ""


def safe_path(path: str) -> bool:
    """Whether `path` can be one of a layout: "oci-layout", "index.json" or "blobs/sha256/<hex>"."""
    return re.fullmatch(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}", path) is not None
