"""What devices and edges tell each other beside the bundles themselves; JSON, frozen, unknown keys refused.

    POST {base}/v1/arrivals          Arrival -> 201 Arrived: the device is here and will fetch; the edge may ask the network for quality
    GET  {base}/v1/arrivals/{id}     Arrived: how that stands now
    DELETE {base}/v1/arrivals/{id}   the device is gone, or done: its session ends
    POST {base}/v1/prefetch          Prefetch -> {"held": bool}: a device that is allowed to will come; from one edge to the next
    POST {base}/v1/fetches           FetchReports (hub/contract) -> {"new": n}: what became of it; ends the arrival, and its session
    GET  {bundles}/{name}/{version}/patches/{base}/{target}     a patch (cellwright/delta) from one blob to another, by their SHA-256

All but the last need the grant that the downloads need; the last needs what its bundle needs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cellwright.hub.contract import Amount, Line, Location, ModelName, ShortName, TenantName, VersionName, Wire

ARRIVALS, FETCHES, PATCHES = "/v1/arrivals", "/v1/fetches", "patches"
LONGEST_DEADLINE_S = 86_400.0  # an arrival, and its quality of service, lives for ten of them at most
Asker = Literal["edge", "device", "none"]  # who asks the network for quality of service


class Arrival(Wire):
    """A device has come near and will fetch a model."""

    device: ShortName
    tenant: TenantName
    model: ModelName
    version: VersionName | Literal["latest"] = "latest"
    deadline_s: Annotated[float, Field(gt=0, le=LONGEST_DEADLINE_S)] | None = None  # for the model; None: as soon as may be
    bytes: Amount | None = None  # that it still needs; None: all of it, which is also the most
    location: Location | None = None
    qos: Asker = "edge"
    address: Annotated[str, Field(max_length=45)] | None = None  # by which the network knows it; None: that of the connection
    next_edge: ShortName | None = None  # where it will be next, by the hub's name; told to bring the model
    heading_deg: Annotated[float, Field(ge=0, lt=360)] | None = (
        None  # clockwise from north; with `location` says which edge is next
    )


class Quality(Wire):
    """Quality of service that was asked for. `state`: of cellwright.qos.session.State."""

    state: Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]
    why: Line = ""
    profile: Line | None = None
    session: Line | None = None


class Arrived(Wire):
    """An arrival as the edge sees it."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    qos: Quality | None = None  # None: the edge asks no network
    held: bool = True  # False: the edge is fetching the model from the hub; ask for it in a second


class Prefetch(Wire):
    """A model that a device will ask for soon."""

    tenant: TenantName
    model: ModelName
    version: VersionName | Literal["latest"] = "latest"
