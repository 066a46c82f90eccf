"""Parts of the room's tests: a network with two cells, two edge zones and two devices, and who asks it."""

from __future__ import annotations

import random
from uuid import UUID

import httpx

from cellwright.qos.client import QodClient
from cellwright.qos.forms import Device
from cellwright.qos.journal import Journal
from cellwright.qos.profile import QosProfile
from cellwright.qos.simulator.network import Network
from cellwright.qos.simulator.options import Behaviour, Cell, NetworkOptions, Terminal, Zone
from cellwright.qos.simulator.remote import Remote
from cellwright.qos.transport import Retries

NOON_S = 1_767_268_800.0  # 2026-01-01 12:00 UTC
UE = Device.model_validate(
    {"phoneNumber": "+4915112345678", "ipv4Address": {"publicAddress": "127.0.3.7", "privateAddress": "127.0.3.7"}}
)
WEST, EAST = UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), UUID("0c8d5f5e-7dec-11d0-a765-00a0c91e6bf6")
EDGE = "127.0.0.1"


def profile(
    name: str, mbit_s: int, *, loss: int | None = None, longest_s: int = 100, status: str = "ACTIVE", **more: object
) -> QosProfile:
    rate = {"value": mbit_s, "unit": "Mbps"}
    body = {
        "name": name,
        "status": status,
        "targetMinDownstreamRate": rate,
        "maxDuration": {"value": longest_s, "unit": "Seconds"},
    }
    return QosProfile.model_validate(body | ({"packetErrorLossRate": loss} if loss else {}) | more)


def options(**behaviour: object) -> NetworkOptions:
    """Room for one `gold` and one `silver` a cell."""
    return NetworkOptions(
        cells=(Cell(name="west", longitude=0, capacity_bit_s=150e6), Cell(name="east", longitude=1, capacity_bit_s=150e6)),
        zones=(Zone(id=WEST, name="west", longitude=0), Zone(id=EAST, name="east", longitude=1)),
        devices=(Terminal(name="ue", identifiers=UE), Terminal(name="other", identifiers=Device(phone_number="+4915100000001"))),
        profiles=(
            profile("gold", 100, loss=5),
            profile("silver", 50, loss=3),
            profile("gone", 50, status="DEPRECATED"),
            profile("short", 1, longest_s=2),
        ),
        behaviour=Behaviour.model_validate(behaviour),
    )


def patient(attempts: int = 4) -> Retries:
    """Retries that wait for nothing."""
    return Retries(attempts=attempts, rng=random.Random(1), sleep=lambda _s: None)


def client_of(network: Network, journal: Journal | None = None, **more: object) -> QodClient:
    more = {"poll_s": 0.05} | more
    return QodClient(network.url, network.token("tester"), journal=journal, retries=patient(), **more)


def remote_of(network: Network) -> Remote:
    return Remote(network.url, network.control_token)


def api(network: Network, token: str | None = None) -> httpx.Client:
    """A bare HTTP client, for what the typed one would never send."""
    headers = {"Authorization": f"Bearer {token or network.token('tester')}"}
    return httpx.Client(base_url=f"{network.url}/quality-on-demand/v1", headers=headers, trust_env=False, verify=False)


def body(**more: object) -> dict:
    """A body of createSession."""
    asked = {"device": UE.wire(), "applicationServer": {"ipv4Address": EDGE}, "qosProfile": "gold", "duration": 60}
    return {key: value for key, value in (asked | more).items() if value is not None}
