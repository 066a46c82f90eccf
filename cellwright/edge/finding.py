"""Which model a device needs, from which edges, by whose keys: asked of the hub, the edges ordered by the network where it is asked.

No step judges by the device's own clock, which may be wrong: the hub says what is now, the edges say what has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cellwright.bundle.keys import Trust, key_id
from cellwright.edge.route import Stop
from cellwright.errors import EdgeError, HubError, QosError
from cellwright.hub.client import HubClient
from cellwright.hub.contract import GrantAsk, Location, MatchAsk, Requirements
from cellwright.hub.geometry import distance_m
from cellwright.hub.grant import read


@dataclass(frozen=True)
class Wanted:
    """What a device asks for: a model by name, or (`model` None) what the tenant's rules or these requirements lead to."""

    model: str | None = None
    version: str = "latest"
    service: str | None = None
    user_class: str | None = None
    location: Location | None = None
    requirements: Requirements | None = None


@dataclass(frozen=True)
class Found:
    """Where to get what. `digest`: of the manifest, where the hub named it; else the signature alone decides."""

    tenant: str
    model: str
    version: str
    digest: str | None
    bytes: int | None
    trust: Trust
    grant: str
    stops: tuple[Stop, ...]
    why: str
    notes: tuple[str, ...] = ()
    age_s: float | None = None  # of the hub's answer, where the hub is away and this is its last one; None: it is of now


@dataclass
class Finder:
    """Asks one hub for one device. `closest`: asks the network for the zone (its id) that is closest; raises QosError."""

    hub: HubClient
    device: str
    closest: Callable[[], str] | None = None
    only: str | None = None  # name or address of the one edge to use; None: all that hold it
    _asked: Wanted = field(default=Wanted(), init=False)

    def find(self, wanted: Wanted) -> Found:
        """Raises HubError: the hub cannot be reached, or has nothing that fits."""
        self._asked = wanted
        return self._named(wanted) if wanted.model else self._matched(wanted)

    def renew(self) -> str:
        """A new grant for what was found last. Raises HubError."""
        if self._asked.model:
            return self.hub.grant(GrantAsk(device=self.device, models=(self._asked.model,))).grant
        return self.hub.match(self._ask(self._asked)).grant

    def ordered(self, stops: Sequence[Stop]) -> tuple[tuple[Stop, ...], str | None]:
        """The edges, those of the closest zone first; and why they are not ordered by that, where they are not."""
        if self.closest is None:
            return tuple(stops), None
        try:
            zone = self.closest()
        except QosError as error:
            return tuple(stops), f"the network did not say which edge is closest: {error}"[:500]
        if all(stop.zone != zone for stop in stops):
            return tuple(stops), f"no edge of this model is in the closest zone ({zone})"
        return tuple(sorted(stops, key=lambda stop: stop.zone != zone)), None

    def _matched(self, wanted: Wanted) -> Found:
        answer = self.hub.match(self._ask(wanted))
        stops = tuple(Stop(e.url, e.name, e.zone) for e in answer.edges)
        return self._with_stops(
            Found(
                answer.tenant,
                answer.model,
                answer.version if wanted.version == "latest" else wanted.version,
                answer.digest if wanted.version in ("latest", answer.version) else None,
                answer.bytes,
                trust_of(answer.keys),
                answer.grant,
                stops,
                answer.why,
            )
        )

    def _named(self, wanted: Wanted) -> Found:
        assert wanted.model is not None
        leave = self.hub.grant(GrantAsk(device=self.device, models=(wanted.model,)))
        edges = [edge for edge in self.hub.edges() if edge.alive]
        if (here := wanted.location) is not None:
            edges.sort(key=lambda edge: distance_m(edge.location, here))
        stops = tuple(Stop(edge.url, edge.name, edge.zone) for edge in edges)
        tenant = read(leave.grant).tenant
        trust = trust_of(leave.keys)
        return self._with_stops(
            Found(tenant, wanted.model, wanted.version, None, None, trust, leave.grant, stops, "asked for by name")
        )

    def _with_stops(self, found: Found) -> Found:
        if self.only is not None:
            named = [stop for stop in found.stops if self.only in (stop.name, stop.url)]
            address = (Stop(self.only),) if "://" in self.only else ()
            found = replace(found, stops=tuple(named) or address)
        if not found.stops:
            raise EdgeError(
                f"no edge holds {found.model} {found.version}; ask the hub's operator to place it where this device is"
            )
        stops, note = self.ordered(found.stops)
        return replace(found, stops=stops, notes=(note,) if note else ())

    def _ask(self, wanted: Wanted) -> MatchAsk:
        return MatchAsk(
            device=self.device,
            service=wanted.service,
            user_class=wanted.user_class,
            location=wanted.location,
            requirements=wanted.requirements,
        )


def trust_of(pems: Sequence[str]) -> Trust:
    """The keys that a hub delivers. Raises HubError: one is no Ed25519 key."""
    found: dict[str, Ed25519PublicKey] = {}
    for pem in pems:
        try:
            key = load_pem_public_key(pem.encode())
        except ValueError as error:
            raise HubError(f"the hub sent a key that is none ({error}); is it a Cellwright hub?") from error
        if not isinstance(key, Ed25519PublicKey):
            raise HubError(f"the hub sent a key of another kind than Ed25519 ({type(key).__name__})")
        found[key_id(key)] = key
    return found
