"""What a simulated network is: cells, edge zones, devices, profiles, and how it decides. Read from YAML by `cellwright network serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cellwright.errors import WrongUse
from cellwright.qos.forms import Device
from cellwright.qos.profile import QosProfile

Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
BitRate = Annotated[float, Field(gt=0, le=1e13, allow_inf_nan=False)]
Wait = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]


class Strict(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(Strict):
    """A point on the map, degrees (WGS 84)."""

    longitude: Longitude = 0.0
    latitude: Latitude = 0.0


class Cell(Place):
    """A cell. A device is served by the closest one."""

    name: Name
    capacity_bit_s: BitRate = 20e9  # downstream rate that all sessions together may be guaranteed
    background_down_bit_s: BitRate | None = 50e6  # of one device without a session; null: not shaped
    background_up_bit_s: BitRate | None = 20e6
    delay_s: Annotated[float, Field(ge=0, le=5)] = 0.0  # one way, between device and edge
    stalls_per_s: Annotated[float, Field(ge=0, le=100)] = (
        0.0  # of a flow without a session: moments in which nothing passes, as after a loss
    )
    stall_s: Annotated[float, Field(ge=0, le=10)] = 0.2


class Zone(Place):
    """An edge cloud zone."""

    id: UUID
    name: Annotated[str, Field(min_length=1, max_length=128)]
    provider: Annotated[str, Field(min_length=1, max_length=128)] = "Cellwright"


class Terminal(Place):
    """A device that the network knows: a name of the simulator's own, and what the APIs may call it."""

    name: Name
    identifiers: Device


class Behaviour(Strict):
    """How the network decides."""

    decision_s: Wait = 0.0  # between request and decision; 0: the answer says AVAILABLE at once
    deny: bool = False  # every new session becomes UNAVAILABLE
    strangers: Literal["refuse", "admit"] = "refuse"  # devices it does not know: 404, or taken for devices at (0, 0)
    linger_s: Wait = 360.0  # that an ended session can still be read
    plain_sinks: bool = False  # also http sinks, on loopback only; the standard has https only
    far_sinks: bool = False  # also sinks on other machines
    delivery_attempts: Annotated[int, Field(ge=1, le=20)] = 5


def _profile(name: str, down: int, unit: str, up: int, priority: int, loss: int, **more: Any) -> QosProfile:
    rates = {"targetMinDownstreamRate": {"value": down, "unit": unit}, "targetMinUpstreamRate": {"value": up, "unit": "Mbps"}}
    times = {"minDuration": {"value": 1, "unit": "Seconds"}, "maxDuration": {"value": 1, "unit": "Hours"}}
    rest = {"priority": priority, "packetErrorLossRate": loss}
    return QosProfile.model_validate({"name": name, "status": "ACTIVE", **rates, **times, **rest, **more})


def default_profiles() -> tuple[QosProfile, ...]:
    """Rates that the sizes of models ask for (3.2 to 536 MB in 1 s), each with two reliabilities, and a low-latency one."""
    sizes = ((30, "Mbps"), (100, "Mbps"), (512, "Mbps"), (640, "Mbps"), (1, "Gbps"), (2, "Gbps"), (5, "Gbps"))
    models = [
        _profile(f"model_{value}{unit[0].lower()}{suffix}", value, unit, 10, 30 - 10 * (loss > 3), loss)
        for value, unit in sizes
        for suffix, loss in (("", 3), ("_reliable", 5))
    ]
    low = _profile("low_latency", 10, "Mbps", 10, 10, 4, packetDelayBudget={"value": 10, "unit": "Milliseconds"})
    return (low, *models)


class NetworkOptions(Strict):
    """The network at its start; /simulator/… changes it later."""

    cells: tuple[Cell, ...] = (Cell(name="cell"),)
    zones: tuple[Zone, ...] = ()
    devices: tuple[Terminal, ...] = ()
    profiles: tuple[QosProfile, ...] = Field(default_factory=default_profiles)
    behaviour: Behaviour = Behaviour()

    @field_validator("cells")
    @classmethod
    def _some(cls, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        if not cells:
            raise ValueError("a network has at least one cell")
        return cells

    @field_validator("cells", "devices", "profiles")
    @classmethod
    def _distinct(cls, found: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [one.name for one in found]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"named twice: {', '.join(twice)}")
        return found


def read_options(path: Path) -> NetworkOptions:
    """The network that a YAML file describes. Raises WrongUse: it cannot be read, or says what no network is."""
    try:
        return NetworkOptions.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WrongUse(f"cannot read the network from {path}: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise WrongUse(f"{path} describes no network: {'; '.join(lines)}") from None
