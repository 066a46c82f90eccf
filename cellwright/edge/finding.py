"""Which model a device needs, from which edges, by whose keys: asked of the hub, the edges ordered by the network where it is asked.

No step judges by the device's own clock, which may be wrong: the hub says what is now, the edges say what has expired. The one exception
is the age of the hub's last answer, which a device goes by while the hub is away (remembered.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cellwright.bundle.keys import Trust, key_id
from cellwright.edge.remembered import MOST_AGE_S, Answer, Memory, Place, question
from cellwright.edge.route import Stop
from cellwright.errors import EdgeError, HubError, HubRefused, QosError, WorkspaceError
from cellwright.hub.client import HubClient
from cellwright.hub.contract import GrantAsk, Location, MatchAsk, Requirements
from cellwright.hub.geometry import distance_m
from cellwright.hub.grant import read
from cellwright.hub.refusals import DiskFull, TooMany


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
    """Asks one hub for one device. `closest`: asks the network for the zone (its id) that is closest; raises QosError.

    `memory`: of what the hub answered, for when it is away; None: nothing is remembered.
    """

    hub: HubClient
    device: str
    closest: Callable[[], str] | None = None
    only: str | None = None  # name or address of the one edge to use; None: all that hold it
    memory: Memory | None = None
    _asked: Wanted = field(default=Wanted(), init=False)

    def find(self, wanted: Wanted) -> Found:
        """Raises HubError: the hub has nothing that fits, or cannot be reached and did not answer the same question lately."""
        self._asked = wanted
        asked = question(self.hub.url, self.hub.http.headers.get("Authorization", ""), self.device, _spelt(wanted))
        try:
            answer = self._named(wanted) if wanted.model else self._matched(wanted)
        except HubError as error:
            return self._with_stops(self._remembered(asked, error))
        found = _found(answer)
        return self._with_stops(replace(found, notes=self._kept(asked, answer)))

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

    def _matched(self, wanted: Wanted) -> Answer:
        match = self.hub.match(self._ask(wanted))
        return Answer(
            tenant=match.tenant,
            model=match.model,
            version=match.version if wanted.version == "latest" else wanted.version,
            digest=match.digest if wanted.version in ("latest", match.version) else None,
            bytes=match.bytes,
            keys=match.keys,
            grant=match.grant,
            edges=tuple(Place(url=e.url, name=e.name, zone=e.zone) for e in match.edges),
            why=match.why,
        )

    def _named(self, wanted: Wanted) -> Answer:
        assert wanted.model is not None
        leave = self.hub.grant(GrantAsk(device=self.device, models=(wanted.model,)))
        edges = [edge for edge in self.hub.edges() if edge.alive]
        if (here := wanted.location) is not None:
            edges.sort(key=lambda edge: distance_m(edge.location, here))
        return Answer(
            tenant=read(leave.grant).tenant,
            model=wanted.model,
            version=wanted.version,
            digest=None,
            bytes=None,
            keys=leave.keys,
            grant=leave.grant,
            edges=tuple(Place(url=edge.url, name=edge.name, zone=edge.zone) for edge in edges),
            why="asked for by name",
        )

    def _kept(self, asked: str, answer: Answer) -> tuple[str, ...]:
        """Remember the answer; what is to be said of that."""
        if self.memory is None:
            return ()
        try:
            self.memory.keep(asked, answer)
        except WorkspaceError as error:
            return (f"the hub's answer could not be kept for when it is away: {error}"[:500],)
        return ()

    def _remembered(self, asked: str, error: HubError) -> Found:
        """The hub's last answer to the same, if it is away; what it refuses it has taken back. Raises `error` where there is none."""
        if self.memory is None or isinstance(error, TooMany):
            raise error
        if isinstance(error, HubRefused) and not isinstance(error, DiskFull):  # which says nothing of what was asked for
            self.memory.forget(asked)
            raise error
        last = self.memory.last(asked)
        if last is None:
            raise error
        if last.too_old:
            raise HubError(
                f"{error}; its last answer is {last.age_s:.0f} s old by this device's clock, and believed for {MOST_AGE_S:.0f} s"
            ) from error
        said = f"the hub's last answer, {max(0.0, last.age_s):.0f} s old, as it is away"
        found = _found(last.answer)
        return replace(found, why=f"{found.why} ({said})", age_s=max(0.0, last.age_s), notes=(f"{said}: {error}"[:500],))

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
        return replace(found, stops=stops, notes=(*found.notes, note) if note else found.notes)

    def _ask(self, wanted: Wanted) -> MatchAsk:
        return MatchAsk(
            device=self.device,
            service=wanted.service,
            user_class=wanted.user_class,
            location=wanted.location,
            requirements=wanted.requirements,
        )


def _found(answer: Answer) -> Found:
    stops = tuple(Stop(edge.url, edge.name, edge.zone) for edge in answer.edges)
    return Found(
        answer.tenant,
        answer.model,
        answer.version,
        answer.digest,
        answer.bytes,
        trust_of(answer.keys),
        answer.grant,
        stops,
        answer.why,
    )


def _spelt(wanted: Wanted) -> dict[str, Any]:
    """All that is wanted, in one spelling."""
    return {
        "model": wanted.model,
        "version": wanted.version,
        "service": wanted.service,
        "user_class": wanted.user_class,
        "location": wanted.location.model_dump(mode="json") if wanted.location else None,
        "requirements": wanted.requirements.model_dump(mode="json") if wanted.requirements else None,
    }


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
