"""QoS profiles (CAMARA QoS Profiles 1.1.0) as typed forms; rates in bit/s and durations in seconds whatever their units were."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cellwright.qos.forms import Device, Form
from cellwright.qos.values import ProfileName, Text, whole

_BIT_S = {"bps": 1.0, "kbps": 1e3, "Mbps": 1e6, "Gbps": 1e9, "Tbps": 1e12}
_S = {
    "Days": 86400.0,
    "Hours": 3600.0,
    "Minutes": 60.0,
    "Seconds": 1.0,
    "Milliseconds": 1e-3,
    "Microseconds": 1e-6,
    "Nanoseconds": 1e-9,
}
Exponent = Annotated[int, BeforeValidator(whole), Field(ge=1, le=10)]


class Rate(Form):
    """A rate as the standard writes it: 0 to 1024 of a unit."""

    value: Annotated[int, BeforeValidator(whole), Field(ge=0, le=1024)] | None = None
    unit: Literal["bps", "kbps", "Mbps", "Gbps", "Tbps"] | None = None

    @property
    def bit_s(self) -> float | None:
        """Bits a second; None where value or unit is left out."""
        return None if self.value is None or self.unit is None else self.value * _BIT_S[self.unit]


class Span(Form):
    """A duration as the standard writes it."""

    value: Annotated[int, BeforeValidator(whole), Field(ge=1)] | None = None
    unit: Literal["Days", "Hours", "Minutes", "Seconds", "Milliseconds", "Microseconds", "Nanoseconds"] | None = None

    @property
    def s(self) -> float | None:
        """Seconds; None where value or unit is left out."""
        return None if self.value is None or self.unit is None else self.value * _S[self.unit]


class ProfileStatus(StrEnum):
    """Whether new sessions may use a profile: only ACTIVE ones."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    DEPRECATED = "DEPRECATED"


class Availability(Form):
    """A country, and the networks in it, where a profile is offered."""

    country_name: Annotated[Text, Field(pattern=r"^[A-Z]{2}$")]
    networks: tuple[Text, ...] | None = None


class QosProfile(Form):
    """A profile. `packet_error_loss_rate` is an exponent: 3 means that at most 10⁻³ of the packets are lost."""

    name: ProfileName
    status: ProfileStatus
    description: Text | None = None
    country_availability: tuple[Availability, ...] | None = None
    target_min_upstream_rate: Rate | None = None
    max_upstream_rate: Rate | None = None
    target_min_downstream_rate: Rate | None = None
    max_downstream_rate: Rate | None = None
    min_duration: Span | None = None
    max_duration: Span | None = None
    priority: Annotated[int, BeforeValidator(whole), Field(ge=1, le=100)] | None = None
    packet_delay_budget: Span | None = None
    jitter: Span | None = None
    packet_error_loss_rate: Exponent | None = None

    def guaranteed_bit_s(self, *, upstream: bool = False) -> float | None:
        """The rate that the network aims to keep; None where the profile names none."""
        rate = self.target_min_upstream_rate if upstream else self.target_min_downstream_rate
        return rate.bit_s if rate else None

    def most_bit_s(self, *, upstream: bool = False) -> float | None:
        """The rate that the network never goes beyond; None where the profile names none."""
        rate = self.max_upstream_rate if upstream else self.max_downstream_rate
        return rate.bit_s if rate else None

    @property
    def shortest_s(self) -> float:
        """Least duration of a session."""
        return (self.min_duration.s if self.min_duration else None) or 1.0

    @property
    def longest_s(self) -> float | None:
        """Longest duration of a session, extensions included; None: no limit is named."""
        return self.max_duration.s if self.max_duration else None


class ProfilesOf(Form):
    """Body of retrieveQoSProfiles."""

    device: Device | None = None
    name: ProfileName | None = None
    status: ProfileStatus | None = None
