"""Who takes part, what was fetched, and how one waits for something to happen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from road_anomalies.telling import Telling

from cellwright.edge.device import Device
from cellwright.edge.fetched import Fetched
from cellwright.edge.finding import Wanted
from cellwright.edge.quality import Network
from cellwright.errors import CellwrightError
from cellwright.hub.client import HubClient
from cellwright.qos.simulator.remote import Remote
from cellwright.qos.simulator.state import State
from tourist_guide.places import PHONE, SPOTS

COMPANY, FOREIGN = "company-a", "company-b"
SERVICE = "guide"
MODEL_A, MODEL_B = "model-a", "model-b"
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Sizes:
    """How large the story is, and what is promised."""

    bytes: int = 6_400_000  # of a model
    deadline_s: float = 1.0
    slow: float = 3.0  # deadlines that a transfer takes without a session
    held_within_s: float = 1.0  # from a publication until the edge serves it
    patience_s: float = 300.0  # for what has no promise
    seed: int = 7

    @property
    def slow_s(self) -> float:
        """Seconds of a transfer without a session."""
        return self.slow * self.deadline_s


@dataclass(frozen=True)
class Row:
    """A fetch of the story."""

    what: str
    fetched: Fetched


@dataclass
class Cast:
    """The operator's side, company A's, and the phone's."""

    sizes: Sizes
    folder: Path
    telling: Telling
    hub_folder: Path
    hub_url: str
    operator: HubClient
    network: State
    remote: Remote
    clients: dict[str, HubClient] = field(default_factory=dict)  # by tenant
    edges: dict[str, str] = field(default_factory=dict)  # name -> its own address
    entrances: dict[str, int] = field(default_factory=dict)  # name -> port at which devices reach it
    files: dict[str, Path] = field(default_factory=dict)  # "model-a 1.0.0" -> what was uploaded
    reported: set[str] = field(default_factory=set)  # ids of fetch reports that the hub had
    rows: list[Row] = field(default_factory=list)

    @property
    def company(self) -> HubClient:
        """Company A's own client."""
        return self.clients[COMPANY]

    @property
    def cloud(self) -> Network:
        """The network, as the phone asks it."""
        return Network(self.network.url, self.remote.token("guide-app", device=PHONE))

    def phone(self, memory: str) -> Device:
        """The phone, with models in a folder of that name. What only a process knows is forgotten each time."""
        return Device(self.folder / "phones" / memory, {}, name=PHONE)

    def at(self, place: str) -> None:
        """The phone is there now."""
        self.remote.move(PHONE, SPOTS[place].longitude, SPOTS[place].latitude)

    def carried_bytes(self, edge: str) -> int:
        """What has gone through the network from an edge to devices."""
        return next(int(link["down_bytes"]) for link in self.remote.all()["links"] if link["port"] == self.entrances[edge])

    def sessions(self) -> list[dict[str, Any]]:
        """QoS sessions that the network has."""
        return list(self.remote.all()["sessions"])

    def served(self, edge: str, model: str, grant: str, tenant: str = COMPANY) -> Mapping[str, Any] | None:
        """What an edge says of a model's latest version; asked by the operator, beside the shaped network."""
        answer = httpx.get(
            f"{self.edges[edge]}/v1/tenants/{tenant}/bundles/{model}/latest",
            headers={"Authorization": f"Bearer {grant}"},
            trust_env=False,
        )
        return answer.json() if answer.is_success else None


def here(place: str) -> Wanted:
    """What the guide app asks for."""
    return Wanted(service=SERVICE, location=SPOTS[place])


def until(what: Callable[[], _Found], patience_s: float, why: str, *, pause_s: float = 0.02) -> tuple[_Found, float]:
    """Wait for something to become true; what it is then, and after how many seconds. Raises CellwrightError."""
    started = time.perf_counter()
    while not (found := what()):
        if time.perf_counter() - started > patience_s:
            raise CellwrightError(f"{why}: it did not happen within {patience_s:g} s")
        time.sleep(pause_s)
    return found, time.perf_counter() - started
