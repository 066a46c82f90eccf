"""The operations of the three APIs over HTTP (aiohttp): who asks, for which device, and the answer in the standard's form."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiohttp import web

from cellwright.qos.forms import ClosestTo, CreateSession, Device, EdgeZone, ExtendSession, OfDevice
from cellwright.qos.profile import ProfilesOf
from cellwright.qos.simulator.access import Grant
from cellwright.qos.simulator.bodies import check_sink, formed, parsed
from cellwright.qos.simulator.options import Terminal
from cellwright.qos.simulator.refusal import Refusal, invalid, not_found
from cellwright.qos.simulator.sessions import Held, Subject
from cellwright.qos.simulator.terrain import identified

if TYPE_CHECKING:
    from cellwright.qos.simulator.network import Network

QOD, PROFILES, DISCOVERY = "/quality-on-demand/v1", "/qos-profiles/v1", "/simple-edge-discovery/v2"
_UUID = re.compile(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_NAME = re.compile(r"^[a-zA-Z0-9_.-]{3,256}\Z")
Operation = Callable[[web.Request, Grant], Awaitable[web.Response]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Camara:
    """Handlers that share one network."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def add_to(self, app: web.Application) -> None:
        """Add the routes, each with its operation's name and scope."""
        routes: tuple[tuple[str, str, str, Operation, str], ...] = (
            ("POST", f"{QOD}/sessions", "createSession", self._create, "quality-on-demand:sessions:create"),
            ("GET", f"{QOD}/sessions/{{id}}", "getSession", self._get, "quality-on-demand:sessions:read"),
            ("DELETE", f"{QOD}/sessions/{{id}}", "deleteSession", self._delete, "quality-on-demand:sessions:delete"),
            (
                "POST",
                f"{QOD}/sessions/{{id}}/extend",
                "extendQosSessionDuration",
                self._extend,
                "quality-on-demand:sessions:update",
            ),
            (
                "POST",
                f"{QOD}/retrieve-sessions",
                "retrieveSessionsByDevice",
                self._retrieve,
                "quality-on-demand:sessions:retrieve-by-device",
            ),
            ("POST", f"{PROFILES}/retrieve-qos-profiles", "retrieveQoSProfiles", self._profiles, "qos-profiles:read"),
            ("GET", f"{PROFILES}/qos-profiles/{{name}}", "getQosProfile", self._profile, "qos-profiles:read"),
            (
                "POST",
                f"{DISCOVERY}/retrieve-closest-edge-cloud-zone",
                "readClosestEdgeCloudZone",
                self._zone,
                "simple-edge-discovery:read",
            ),
        )
        for method, path, name, operation, scope in routes:
            app.router.add_route(method, path, self._guarded(operation, scope), name=name)

    def _guarded(self, operation: Operation, scope: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            grant = self._network.access.check(request.headers.get("Authorization", ""), scope)
            return await operation(request, grant)

        return handle

    # Quality-on-Demand

    async def _create(self, request: web.Request, grant: Grant) -> web.Response:
        body = await _body(request)
        check_sink(body, self._network.sessions.behaviour)
        asked = formed(CreateSession, body)
        held = self._network.sessions.create(self._subject(grant, asked.device), asked, self._now())
        self._network.changed()
        return web.json_response(held.info().wire(), status=201, headers={"Location": f"{QOD}/sessions/{held.id}"})

    async def _get(self, request: web.Request, grant: Grant) -> web.Response:
        return web.json_response(self._held(request, grant).info().wire())

    async def _delete(self, request: web.Request, grant: Grant) -> web.Response:
        self._network.sessions.delete(self._held(request, grant), self._now())
        self._network.changed()
        return web.Response(status=204)

    async def _extend(self, request: web.Request, grant: Grant) -> web.Response:
        session_id = _session_id(request)
        body = await _body(request)
        asked = formed(ExtendSession, body)
        held = self._network.sessions.get(grant.client, self._own(grant), session_id, self._now())
        extended = self._network.sessions.extend(held, asked.requested_additional_duration)
        self._network.changed()
        return web.json_response(extended.info().wire())

    async def _retrieve(self, request: web.Request, grant: Grant) -> web.Response:
        asked = formed(OfDevice, await _body(request))
        subject = self._subject(grant, asked.device)
        found = self._network.sessions.of_device(grant.client, subject.device, self._now())
        return web.json_response([held.info().wire() for held in found])

    def _held(self, request: web.Request, grant: Grant) -> Held:
        return self._network.sessions.get(grant.client, self._own(grant), _session_id(request), self._now())

    # QoS Profiles

    async def _profiles(self, request: web.Request, grant: Grant) -> web.Response:
        body = await _body(request)
        asked = formed(ProfilesOf, body)
        if asked.device is not None or grant.device:
            self._subject(grant, asked.device)
        found = [
            profile.wire()
            for profile in self._network.sessions.profiles.values()
            if asked.name in (None, profile.name) and asked.status in (None, profile.status)
        ]
        return web.json_response(found)

    async def _profile(self, request: web.Request, grant: Grant) -> web.Response:
        name = request.match_info["name"]
        if not _NAME.match(name):
            raise invalid("A profile's name has 3 to 256 letters, digits, '_', '.' or '-'.")
        profile = self._network.sessions.profiles.get(name)
        if profile is None:
            raise not_found()
        return web.json_response(profile.wire())

    # Simple Edge Discovery

    async def _zone(self, request: web.Request, grant: Grant) -> web.Response:
        asked = formed(ClosestTo, await _body(request))
        subject = self._subject(grant, asked.device)
        zone = self._network.terrain.zone_of(subject.device)
        several = asked.device is not None and len(asked.device.wire()) > 1
        shown = subject.shown if several else None
        return web.json_response(EdgeZone(id=zone.id, name=zone.name, provider=zone.provider, device=shown).wire())

    # who is meant

    def _subject(self, grant: Grant, device: Device | None) -> Subject:
        """The device of a request: named by it, or by the token, never by both. Raises Refusal."""
        own = self._own(grant)
        if own is not None:
            if device is not None:
                raise Refusal(422, "UNNECESSARY_IDENTIFIER", "The device is already identified by the access token.")
            return Subject(grant.client, own, None)
        if device is None:
            raise Refusal(422, "MISSING_IDENTIFIER", "The device cannot be identified.")
        supported = identified(device)
        if not supported:
            raise Refusal(422, "UNSUPPORTED_IDENTIFIER", "The identifier provided is not supported.")
        found = self._network.terrain.find(device) or self._network.stranger(supported[0])
        if found is None:
            raise Refusal(404, "IDENTIFIER_NOT_FOUND", "Device identifier not found.")
        return Subject(grant.client, found, supported[0])

    def _own(self, grant: Grant) -> Terminal | None:
        if grant.device is None:
            return None
        found = self._network.terrain.devices.get(grant.device)
        if found is None:
            raise Refusal(404, "IDENTIFIER_NOT_FOUND", "Device identifier not found.")
        return found

    def _now(self) -> float:
        return self._network.clock.now_s()


async def _body(request: web.Request) -> dict[str, Any]:
    content_type = request.content_type if "Content-Type" in request.headers else ""
    return parsed(await request.read(), content_type)


def _session_id(request: web.Request) -> UUID:
    text = request.match_info["id"]
    if not _UUID.match(text):
        raise invalid("A session's id is a UUID.")
    return UUID(text)
