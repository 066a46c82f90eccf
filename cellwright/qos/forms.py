"""What travels in CAMARA Quality-on-Demand 1.1.0 and Simple Edge Discovery 2.0.1, as far as it is used, typed.

Names are those of the standard in Python's form (`sessionId` is `session_id`). Properties that a form does not know are ignored, as
the standard lets a provider add some.
"""

from __future__ import annotations

import ipaddress
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel

from cellwright.qos.values import (
    Identifier,
    Instant,
    Ipv4,
    Ipv4Range,
    Ipv6,
    Ipv6Range,
    PhoneNumber,
    Port,
    ProfileName,
    Seconds,
    Text,
)

EVENT_TYPE: Literal["org.camaraproject.quality-on-demand.v1.qos-status-changed"] = (
    "org.camaraproject.quality-on-demand.v1.qos-status-changed"
)
FROM_OUTSIDE = {"from": "outside"}  # context of a validation that refuses nulls
CORRELATOR = re.compile(r"^[a-zA-Z0-9_:;./<>{}-]{0,256}\Z")


class Form(BaseModel):
    """A JSON object of the standard, read and written by the standard's names. What is not given is None here, and left out there."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _no_nulls(cls, data: Any, info: ValidationInfo) -> Any:
        if info.context is FROM_OUTSIDE and isinstance(data, dict):
            names = {field.alias or name for name, field in cls.model_fields.items()}
            if null := sorted(name for name in names if name in data and data[name] is None):
                raise ValueError(f"{', '.join(null)} is null; leave out what is not given")
        return data

    def wire(self) -> dict[str, Any]:
        """The object to send: JSON types, nothing that was not given."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Ipv4Address(Form):
    """A device's IPv4 address as others see it, with what tells it from its neighbours behind the same one."""

    public_address: Ipv4
    private_address: Ipv4 | None = None
    public_port: Port | None = None

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.private_address is None and self.public_port is None:
            raise ValueError("publicAddress needs privateAddress or publicPort beside it")
        return self


class Device(Form):
    """A device (UE), by at least one of its identifiers."""

    phone_number: PhoneNumber | None = None
    network_access_identifier: Text | None = None
    ipv4_address: Ipv4Address | None = None
    ipv6_address: Ipv6 | None = None

    @model_validator(mode="before")
    @classmethod
    def _any(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data:
            raise ValueError("a device is named by at least one identifier")
        return data


class ApplicationServer(Form):
    """The far end of the flow: one address or a range (CIDR)."""

    ipv4_address: Ipv4Range | None = None
    ipv6_address: Ipv6Range | None = None

    @model_validator(mode="before")
    @classmethod
    def _any(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data:
            raise ValueError("an application server is named by at least one address")
        return data

    def overlaps(self, other: ApplicationServer) -> bool:
        """Whether some address belongs to both."""
        pairs = ((self.ipv4_address, other.ipv4_address), (self.ipv6_address, other.ipv6_address))
        return any(a and b and _network(a).overlaps(_network(b)) for a, b in pairs)

    def covers(self, address: str) -> bool:
        """Whether an address belongs to it."""
        found = ipaddress.ip_address(address)
        ranges = (self.ipv4_address, self.ipv6_address)
        return any(text is not None and found in _network(text) for text in ranges)


def _network(text: str) -> Any:
    return ipaddress.ip_network(text, strict=False)


class PortRange(Form):
    """Ports `first` to `last`, both included; the standard calls them from and to."""

    first: Port = Field(alias="from")
    last: Port = Field(alias="to")


class Ports(Form):
    """Some ports, one by one or as ranges."""

    ranges: Annotated[tuple[PortRange, ...], Field(min_length=1)] | None = None
    ports: Annotated[tuple[Port, ...], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _any(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data:
            raise ValueError("ports are given one by one, or as ranges")
        return data

    def spans(self) -> tuple[tuple[int, int], ...]:
        """All of them as ranges, both ends included."""
        ranges = tuple((r.first, r.last) for r in self.ranges or ())
        return ranges + tuple((port, port) for port in self.ports or ())

    def covers(self, port: int) -> bool:
        """Whether a port is among them."""
        return any(first <= port <= last for first, last in self.spans())


def ports_overlap(one: Ports | None, other: Ports | None) -> bool:
    """Whether some port belongs to both; none given means all."""
    if one is None or other is None:
        return True
    return any(max(a, c) <= min(b, d) for a, b in one.spans() for c, d in other.spans())


class SinkCredential(Form):
    """The bearer token that the network shows where it sends notifications."""

    credential_type: Literal["ACCESSTOKEN"] = "ACCESSTOKEN"
    access_token: Text = Field(repr=False)
    access_token_expires_utc: Instant
    access_token_type: Literal["bearer"] = "bearer"  # noqa: S105  # a kind, no secret


class Flow(Form):
    """Between whom a session applies: the device's ports, the application server and its ports."""

    application_server: ApplicationServer
    device_ports: Ports | None = None
    application_server_ports: Ports | None = None

    def overlaps(self, other: Flow) -> bool:
        """Whether some packet would belong to both."""
        return (
            self.application_server.overlaps(other.application_server)
            and ports_overlap(self.application_server_ports, other.application_server_ports)
            and ports_overlap(self.device_ports, other.device_ports)
        )


class CreateSession(Flow):
    """Body of createSession."""

    device: Device | None = None
    qos_profile: ProfileName
    sink: Annotated[Text, Field(max_length=2048)] | None = None
    sink_credential: SinkCredential | None = None
    duration: Seconds


class ExtendSession(Form):
    """Body of extendQosSessionDuration."""

    requested_additional_duration: Seconds


class OfDevice(Form):
    """Body of retrieveSessionsByDevice."""

    device: Device | None = None


class ClosestTo(OfDevice):
    """Body of readClosestEdgeCloudZone, whose schema knows no ports below 1024."""

    @model_validator(mode="after")
    def _high_port(self) -> Self:
        v4 = self.device.ipv4_address if self.device else None
        if v4 and v4.public_port is not None and v4.public_port < 1024:
            raise ValueError("publicPort is 1024 or above")
        return self


class QosStatus(StrEnum):
    """What the network says of a session."""

    REQUESTED = "REQUESTED"
    AVAILABLE = "AVAILABLE"
    UNAVAILABLE = "UNAVAILABLE"


class StatusInfo(StrEnum):
    """Why a session is unavailable."""

    DURATION_EXPIRED = "DURATION_EXPIRED"
    NETWORK_TERMINATED = "NETWORK_TERMINATED"
    DELETE_REQUESTED = "DELETE_REQUESTED"


class SessionInfo(Flow):
    """A session as the network tells of it. `duration`: seconds since `started_at`."""

    session_id: Identifier
    device: Device | None = None
    qos_profile: ProfileName
    sink: Text | None = None
    duration: Seconds
    started_at: Instant | None = None
    expires_at: Instant | None = None
    qos_status: QosStatus
    status_info: StatusInfo | None = None


class StatusChanged(Form):
    """Data of a notification."""

    session_id: Identifier
    qos_status: Literal[QosStatus.AVAILABLE, QosStatus.UNAVAILABLE]
    status_info: StatusInfo | None = None


class CloudEvent(Form):
    """A notification (CloudEvents 1.0, structured mode)."""

    model_config = ConfigDict(alias_generator=str.lower)

    id: Annotated[Text, Field(min_length=1, max_length=256)]
    source: Annotated[Text, Field(min_length=1, max_length=2048)]
    specversion: Literal["1.0"] = "1.0"
    type: Literal["org.camaraproject.quality-on-demand.v1.qos-status-changed"] = EVENT_TYPE
    datacontenttype: Literal["application/json"] = "application/json"
    time: Instant
    data: StatusChanged


class EdgeZone(Form):
    """An edge cloud zone: the closest one to a device."""

    id: Identifier = Field(alias="edgeCloudZoneId")
    name: Text = Field(alias="edgeCloudZoneName")
    provider: Text = Field(alias="edgeCloudProvider")
    device: Device | None = None


class Problem(Form):
    """An error as CAMARA writes it."""

    status: int
    code: Text
    message: Text
