"""Where things are, and what the network there gives: two areas, a cell and an edge zone in each, one phone."""

from __future__ import annotations

import math
from uuid import UUID

from cellwright.hub.contract import Location
from cellwright.qos.forms import Device
from cellwright.qos.profile import QosProfile
from cellwright.qos.simulator.options import Cell, NetworkOptions, Terminal, Zone, default_profiles

COMMERCIAL, RESORT = "commercial", "resort"
AREAS = {
    COMMERCIAL: {"type": "Polygon", "coordinates": [[[2.0, 48.0], [2.1, 48.0], [2.1, 48.1], [2.0, 48.1], [2.0, 48.0]]]},
    RESORT: {"type": "Polygon", "coordinates": [[[6.0, 45.0], [6.2, 45.0], [6.2, 45.2], [6.0, 45.2], [6.0, 45.0]]]},
}
SPOTS = {COMMERCIAL: Location(longitude=2.05, latitude=48.05), RESORT: Location(longitude=6.1, latitude=45.1)}
ZONES = {COMMERCIAL: UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), RESORT: UUID("0c8d5f5e-7dec-11d0-a765-00a0c91e6bf6")}
PHONE = "phone"
_IDENTIFIERS = {"phoneNumber": "+4915112345678", "ipv4Address": {"publicAddress": "127.0.0.1", "privateAddress": "127.0.0.1"}}
_UNITS = (("bps", 1.0), ("kbps", 1e3), ("Mbps", 1e6), ("Gbps", 1e9))


def network(model_bytes: int, slow_s: float) -> NetworkOptions:
    """A network in which a model of this size takes `slow_s` without a session. Its profiles are those that the sizes of models ask for,
    and `steady`, for whoever has so much time."""
    background_bit_s = model_bytes * 8 / slow_s
    return NetworkOptions(
        cells=tuple(Cell(name=name, background_down_bit_s=background_bit_s, **_at(name)) for name in AREAS),
        zones=tuple(Zone(id=ZONES[name], name=name, **_at(name)) for name in AREAS),
        devices=(Terminal(name=PHONE, identifiers=Device.model_validate(_IDENTIFIERS), **_at(COMMERCIAL)),),
        profiles=(*default_profiles(), _steady(1.06 * background_bit_s)),
    )


def _at(name: str) -> dict[str, float]:
    return SPOTS[name].model_dump()


def _steady(least_bit_s: float) -> QosProfile:
    """A profile of at least this rate; rates in the standard are whole numbers up to 1024 of a unit."""
    unit, size = next((unit, size) for unit, size in _UNITS if least_bit_s <= 1024 * size)
    return QosProfile.model_validate(
        {
            "name": "steady",
            "status": "ACTIVE",
            "targetMinDownstreamRate": {"value": math.ceil(least_bit_s / size), "unit": unit},
            "minDuration": {"value": 1, "unit": "Seconds"},
            "maxDuration": {"value": 1, "unit": "Hours"},
        }
    )
