"""/simulator/…: what no real network offers. Devices move, sessions are revoked, answers get lost, time goes forward."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from cellwright.qos.forms import Device
from cellwright.qos.simulator.access import CONTROL, SCOPES, Grant
from cellwright.qos.simulator.answers import Fault
from cellwright.qos.simulator.bodies import parsed
from cellwright.qos.simulator.options import Behaviour, Cell, Name, Place, Strict, Terminal, Wait, Zone
from cellwright.qos.simulator.refusal import Refusal, invalid, not_found

if TYPE_CHECKING:
    from cellwright.qos.simulator.network import Network

_Body = TypeVar("_Body", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OPERATIONS = (
    "createSession",
    "getSession",
    "deleteSession",
    "extendQosSessionDuration",
    "retrieveSessionsByDevice",
    "retrieveQoSProfiles",
    "getQosProfile",
    "readClosestEdgeCloudZone",
)


class NewDevice(Place):
    """A device that the network is to know."""

    identifiers: Device


class NewZone(Place):
    """An edge zone that the network is to know."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    provider: Annotated[str, Field(min_length=1, max_length=128)] = "Cellwright"


class NewToken(Strict):
    """A token that is wanted."""

    client: Name = "client"
    device: Name | None = None
    scopes: tuple[str, ...] = tuple(sorted(SCOPES))


class NewFault(Strict):
    """An operation that is to fail."""

    operation: str
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    retry_after_s: Annotated[int, Field(ge=0, le=3600)] | None = None
    lose_answer: bool = False
    times: Annotated[int, Field(ge=1, le=1000)] = 1


class NewLink(Strict):
    """An entrance that leads through the network to an edge."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]
    device: Name | None = None


class Advance(Strict):
    """How far time goes forward."""

    seconds: Wait


class Control:
    """Handlers that share one network; all need its control token."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        routes: tuple[tuple[str, str, Handler], ...] = (
            ("GET", "", self._all),
            ("PUT", "/devices/{name}", self._put_device),
            ("DELETE", "/devices/{name}", self._drop_device),
            ("PUT", "/devices/{name}/location", self._move),
            ("POST", "/devices/{name}/cut", self._cut),
            ("PUT", "/zones/{id}", self._put_zone),
            ("DELETE", "/zones/{id}", self._drop_zone),
            ("PUT", "/cells/{name}", self._put_cell),
            ("PUT", "/behaviour", self._behave),
            ("POST", "/tokens", self._token),
            ("POST", "/faults", self._fault),
            ("POST", "/links", self._link),
            ("POST", "/clock", self._advance),
            ("POST", "/sessions/{id}/revoke", self._revoke),
        )
        for method, path, handler in routes:
            app.router.add_route(method, f"/simulator{path}", self._guarded(handler))

    def _guarded(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._network.access.check(request.headers.get("Authorization", ""), CONTROL)
            response = await handler(request)
            self._network.changed()
            return response

        return handle

    async def _all(self, request: web.Request) -> web.Response:
        network = self._network
        network.sessions.tick(network.clock.now_s())
        held = network.sessions.held.values()
        links = network.shaper.links
        return web.json_response(
            {
                "now_s": network.clock.now_s(),
                "cells": [cell.model_dump(mode="json") for cell in network.terrain.cells.values()],
                "zones": [zone.model_dump(mode="json") for zone in network.terrain.zones.values()],
                "devices": [_device(device) for device in network.terrain.devices.values()],
                "sessions": [{"client": h.subject.client, "device_name": h.subject.device.name, **h.info().wire()} for h in held],
                "links": [
                    {
                        "host": k.host,
                        "port": k.port,
                        "target": list(k.target),
                        "down_bytes": k.carried_down,
                        "up_bytes": k.carried_up,
                    }
                    for k in links
                ],
            }
        )

    async def _put_device(self, request: web.Request) -> web.Response:
        asked = await _body(request, NewDevice)
        device = _made(Terminal, {"name": request.match_info["name"], **dict(asked)})
        self._network.terrain.put(device)
        self._network.sessions.moved(device, self._network.clock.now_s())
        return web.json_response(_device(device))

    async def _drop_device(self, request: web.Request) -> web.Response:
        self._network.sessions.forget(request.match_info["name"], self._network.clock.now_s())
        self._network.terrain.drop(request.match_info["name"])
        return web.Response(status=204)

    async def _move(self, request: web.Request) -> web.Response:
        device = self._network.terrain.move(request.match_info["name"], await _body(request, Place))
        self._network.sessions.moved(device, self._network.clock.now_s())
        return web.json_response(_device(device))

    async def _cut(self, request: web.Request) -> web.Response:
        return web.json_response({"connections": self._network.shaper.cut(request.match_info["name"])})

    async def _put_zone(self, request: web.Request) -> web.Response:
        zone = _made(Zone, {"id": request.match_info["id"], **dict(await _body(request, NewZone))})
        self._network.terrain.zones[zone.id] = zone
        return web.json_response(zone.model_dump(mode="json"))

    async def _drop_zone(self, request: web.Request) -> web.Response:
        self._network.terrain.zones.pop(_uuid(request), None)
        return web.Response(status=204)

    async def _put_cell(self, request: web.Request) -> web.Response:
        body = parsed(await request.read(), request.content_type)
        cell = _made(Cell, {**body, "name": request.match_info["name"]})
        self._network.terrain.put_cell(cell)
        self._network.sessions.version += 1
        return web.json_response(cell.model_dump(mode="json"))

    async def _behave(self, request: web.Request) -> web.Response:
        """Changes what is given; the rest stays."""
        body = parsed(await request.read(), request.content_type)
        sessions = self._network.sessions
        sessions.behave(_made(Behaviour, sessions.behaviour.model_dump() | body))
        return web.json_response(sessions.behaviour.model_dump(mode="json"))

    async def _token(self, request: web.Request) -> web.Response:
        asked = await _body(request, NewToken)
        if strange := sorted(set(asked.scopes) - SCOPES):
            raise invalid(f"There is no scope {', '.join(strange)}.")
        if asked.device is not None and asked.device not in self._network.terrain.devices:
            raise not_found(f"There is no device {asked.device}.")
        token = self._network.access.new(Grant(asked.client, frozenset(asked.scopes), asked.device))
        return web.json_response({"token": token}, status=201)

    async def _fault(self, request: web.Request) -> web.Response:
        asked = await _body(request, NewFault)
        if asked.operation not in OPERATIONS:
            raise invalid(f"There is no operation {asked.operation}; there are {', '.join(OPERATIONS)}.")
        self._network.faults.add(asked.operation, Fault(asked.status, asked.retry_after_s, asked.lose_answer), asked.times)
        return web.Response(status=204)

    async def _link(self, request: web.Request) -> web.Response:
        asked = await _body(request, NewLink)
        if asked.device is not None and asked.device not in self._network.terrain.devices:
            raise not_found(f"There is no device {asked.device}.")
        link = await self._network.shaper.listen((asked.host, asked.port), device=asked.device)
        return web.json_response({"host": link.host, "port": link.port}, status=201)

    async def _advance(self, request: web.Request) -> web.Response:
        asked = await _body(request, Advance)
        now_s = self._network.clock.advance(asked.seconds)
        self._network.sessions.tick(now_s)
        return web.json_response({"now_s": now_s})

    async def _revoke(self, request: web.Request) -> web.Response:
        held = self._network.sessions.revoke(_uuid(request), self._network.clock.now_s())
        return web.json_response(held.info().wire())


async def _body(request: web.Request, form: type[_Body]) -> _Body:
    return _made(form, parsed(await request.read(), request.content_type))


def _made(form: type[_Body], found: dict[str, Any]) -> _Body:
    try:
        return form.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise Refusal(400, "INVALID_ARGUMENT", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _device(device: Terminal) -> dict[str, Any]:
    return device.model_dump(mode="json", exclude={"identifiers"}) | {"identifiers": device.identifiers.wire()}


def _uuid(request: web.Request) -> UUID:
    try:
        return UUID(request.match_info["id"])
    except ValueError:
        raise invalid("An id is a UUID.") from None
