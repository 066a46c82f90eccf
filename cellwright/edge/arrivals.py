"""Devices that arrive, fetch and report.

An arrival makes sure that the model is held, lets the edge ask the network for quality (cellwright/qos), and tells the edge that the
device is heading for. The quality lasts as long as the transfer: until the device reports, leaves, or is not heard of any more.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
from aiohttp import hdrs, web

from cellwright.edge.acceleration import Acceleration, told
from cellwright.edge.agent import Agent
from cellwright.edge.bodies import parsed
from cellwright.edge.contract import ARRIVALS, FETCHES, Arrival, Arrived, Prefetch, Quality
from cellwright.edge.files import ACCEL
from cellwright.edge.guard import Guard
from cellwright.edge.outbox import Report
from cellwright.edge.request import RequestError
from cellwright.edge.tenants import Tenants
from cellwright.errors import WorkspaceError
from cellwright.hub.contract import Edge, FetchReport, FetchReports, Location, QosRecord
from cellwright.hub.grant import Grant

if TYPE_CHECKING:
    from cellwright.qos.session import Session

log = logging.getLogger(__name__)
PREFETCH = "/v1/prefetch"
_MOST = 20_000  # arrivals at once, of which one tenant may have half
_MOST_TOLD = 64  # neighbours that are being told of a device at once; what is beyond comes unannounced
_LEAST_LIFE_S, _LIFE_OF_DEADLINE = 30.0, 10.0  # an arrival is forgotten after ten deadlines, or half a minute
_STATUS = {"requested": "REQUESTED", "available": "AVAILABLE", "denied": "DENIED", "released": "DELETED"}
_AHEAD_DEG = 60.0  # an edge is ahead if it lies within so much of the heading


_Device = tuple[str, str]  # tenant, device


@dataclass
class _Here:
    """A device that is here."""

    arrival: Arrival
    grant: Grant
    bytes: int
    started_s: float = field(default_factory=time.time)
    session: Session | None = None
    quality: Quality | None = None
    ending: asyncio.TimerHandle | None = None

    @property
    def now(self) -> Quality | None:
        return told(self.session) if self.session is not None else self.quality


class Arrivals:
    """All devices that are here. Used from the event loop's thread only."""

    def __init__(self, guard: Guard, tenants: Tenants, agent: Agent, network: Acceleration | None) -> None:
        self._guard, self._tenants, self._agent, self._network = guard, tenants, agent, network
        self._here: dict[str, _Here] = {}
        self._of: dict[_Device, str] = {}  # a device is here once
        self._of_tenant: Counter[str] = Counter()
        self._telling = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Serve what contract.py says."""
        router.add_post(ARRIVALS, self.arrive)
        router.add_get(f"{ARRIVALS}/{{id}}", self.look)
        router.add_delete(f"{ARRIVALS}/{{id}}", self.leave)
        router.add_post(PREFETCH, self.prefetch)
        router.add_post(FETCHES, self.report)

    async def close(self) -> None:
        """Release all sessions."""
        await asyncio.gather(*(self._end(id) for id in list(self._here)))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._network is not None:
            await asyncio.to_thread(self._network.close)

    async def arrive(self, request: web.Request) -> web.Response:
        """A device is here."""
        self._guard.grant(request)  # nobody unknown has a body read
        arrival = await parsed(request, Arrival)
        grant = self._granted(request, arrival.tenant, arrival.model, arrival.device)
        held, size = self._ensured(arrival.tenant, arrival.model, arrival.version)
        device = (arrival.tenant, arrival.device)
        before = self._of.get(device)
        if before is None and (len(self._here) >= _MOST or self._of_tenant[arrival.tenant] >= _MOST // 2):
            raise RequestError(429, "as many devices as may be are here already; fetch without announcing it")
        id, here = secrets.token_urlsafe(16), _Here(arrival, grant, size if arrival.bytes is None else min(size, arrival.bytes))
        self._here[id], self._of[device] = here, id
        self._of_tenant[arrival.tenant] += 1
        if before is not None:
            await self._end(before)  # it begins anew
        life_s = max(_LEAST_LIFE_S, _LIFE_OF_DEADLINE * (arrival.deadline_s or 0))
        here.ending = asyncio.get_running_loop().call_later(life_s, lambda: self._background(self._end(id)))
        await self._accelerate(id, here, arrival.address or _address(request))
        if arrival.next_edge is not None or arrival.heading_deg is not None:
            self._background(self._announce(arrival, request.headers[hdrs.AUTHORIZATION]))
        return _json(Arrived(id=id, qos=here.now, held=held), 201)

    async def look(self, request: web.Request) -> web.Response:
        """How an arrival stands."""
        id, here = self._found(request)
        return _json(
            Arrived(id=id, qos=here.now, held=self._tenants.held(here.arrival.tenant, here.arrival.model, here.arrival.version))
        )

    async def leave(self, request: web.Request) -> web.Response:
        """The device is gone or done."""
        id, _ = self._found(request)
        await self._end(id)
        return web.Response(status=204)

    async def prefetch(self, request: web.Request) -> web.Response:
        """A device will come: bring its model."""
        self._guard.grant(request)
        asked = await parsed(request, Prefetch)
        self._guard.tenant(request, asked.tenant, asked.model)
        held, _ = self._ensured(asked.tenant, asked.model, asked.version)
        return web.json_response({"held": held})

    async def report(self, request: web.Request) -> web.Response:
        """What became of fetches; kept until the hub has it."""
        grant = self._guard.grant(request)
        reports = (await parsed(request, FetchReports)).reports
        for found in reports:
            self._granted(request, found.tenant, found.model, found.device)
        rows = [Report("fetch", f"{r.tenant}/{r.id}", r.model_dump_json()) for r in reports]
        try:
            new = await asyncio.to_thread(self._agent.outbox.put, rows)
        except WorkspaceError as error:
            raise RequestError(507, f"the edge has no room for reports; send them to the hub ({error})") from None
        if (id := self._of.get((grant.tenant, grant.subject))) is not None:
            done = [r for r in reports if r.model == self._here[id].arrival.model]
            if done:
                await self._end(id, done[-1])
        return web.json_response({"new": new})

    def _granted(self, request: web.Request, tenant: str, model: str, device: str) -> Grant:
        """A device speaks for itself alone. Raises RequestError (401, 403)."""
        grant = self._guard.tenant(request, tenant, model)
        if device != grant.subject:
            raise RequestError(403, f"the grant is of device '{grant.subject}', which cannot speak for another")
        return grant

    def _found(self, request: web.Request) -> tuple[str, _Here]:
        grant, id = self._guard.grant(request), request.match_info["id"]
        here = self._here.get(id)
        if here is None or (here.grant.tenant, here.grant.subject) != (grant.tenant, grant.subject):
            raise RequestError(404, "there is no such arrival of this device; it has ended, or is another's")
        return id, here

    def _ensured(self, tenant: str, model: str, version: str) -> tuple[bool, int]:
        """Whether a version is held, or else is on its way, and its bytes. Raises RequestError (404)."""
        want = self._agent.library.wanted(tenant, model, version)
        held = self._tenants.held(tenant, model, version)
        if not held and not self._agent.missing(tenant, model, version):
            raise RequestError(404, f"{model} {version} is not placed here; ask the hub which edges have it (POST /v1/match)")
        return held, want.bytes if want else self._tenants.bytes_of(tenant, model, version)

    async def _accelerate(self, id: str, here: _Here, address: str) -> None:
        """Ask the network, where the device wants the edge to."""
        arrival = here.arrival
        if self._network is None or arrival.qos != "edge" or arrival.deadline_s is None:
            return
        here.session, here.quality = await asyncio.to_thread(self._network.open, address, here.bytes, arrival.deadline_s)
        if id not in self._here and here.session is not None:  # it left while the network was asked
            await asyncio.to_thread(self._network.release, here.session)
        self._record(id, here, None)

    async def _end(self, id: str, report: FetchReport | None = None) -> None:
        here = self._here.pop(id, None)
        if here is None:
            return
        device = (here.arrival.tenant, here.arrival.device)
        self._of_tenant[here.arrival.tenant] -= 1
        if self._of.get(device) == id:
            del self._of[device]
        if here.ending is not None:
            here.ending.cancel()
        if self._network is not None and here.session is not None:
            await asyncio.to_thread(self._network.release, here.session)
        if here.quality is not None:
            self._record(id, here, report, ended_s=time.time())

    def _record(self, id: str, here: _Here, report: FetchReport | None, *, ended_s: float | None = None) -> None:
        """Let the hub know of the session."""
        now, arrival = here.now, here.arrival
        if now is None:
            return
        record = QosRecord(
            session=now.session or id,
            tenant=arrival.tenant,
            device=arrival.device,
            edge=self._agent.hub.name,
            model=arrival.model,
            version=report.version if report else None,
            profile=now.profile or "",
            asked_by="edge",
            status=_STATUS.get(now.state, "UNAVAILABLE"),
            status_info=now.why,
            requested_bit_s=here.bytes * 8 / arrival.deadline_s if arrival.deadline_s else None,
            started_s=here.started_s,
            ended_s=ended_s,
            bytes=report.bytes if report else None,
        )
        self._background(
            asyncio.to_thread(
                self._agent.outbox.put, [Report("qos", f"{record.tenant}/{record.session}", record.model_dump_json())]
            )
        )

    async def _announce(self, arrival: Arrival, leave: str) -> None:
        """Tell the edge that the device is heading for. Only edges that the hub knows are told."""
        if self._telling >= _MOST_TOLD:
            log.warning("%d neighbours are being told already; that of %s is not", self._telling, arrival.device)
            return
        self._telling += 1
        try:
            await self._tell(arrival, leave)
        finally:
            self._telling -= 1

    async def _tell(self, arrival: Arrival, leave: str) -> None:
        edges = await asyncio.to_thread(self._agent.edges)
        there = next_edge(edges, self._agent.hub.name, arrival)
        if there is None:
            log.info("no edge is known where %s is heading for", arrival.device)
            return
        body = Prefetch(tenant=arrival.tenant, model=arrival.model, version=arrival.version).model_dump(mode="json")
        try:
            async with httpx.AsyncClient(timeout=10, trust_env=False, verify=there.url.startswith("https:")) as client:
                address, leaves = f"{there.url.rstrip('/')}{PREFETCH}", {"Authorization": leave}
                async with client.stream("POST", address, json=body, headers=leaves) as answer:  # whose body nobody reads
                    log.info("edge %s is told of %s: %d", there.name, arrival.model, answer.status_code)
        except httpx.HTTPError as error:
            log.warning("edge %s cannot be told of %s: %s", there.name, arrival.model, error or type(error).__name__)

    def _background(self, work: object) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def next_edge(edges: tuple[Edge, ...], own: str, arrival: Arrival) -> Edge | None:
    """The edge that a device named, else the nearest of those that lie ahead of it."""
    others = [edge for edge in edges if edge.name != own and edge.alive]
    if arrival.next_edge is not None:
        return next((edge for edge in others if edge.name == arrival.next_edge), None)
    if arrival.location is None or arrival.heading_deg is None:
        return None
    here, heading = arrival.location, arrival.heading_deg
    seen = [(*_way(here, edge.location), edge) for edge in others]
    ahead = [(far, edge.name, edge) for far, bearing, edge in seen if abs((bearing - heading + 180) % 360 - 180) <= _AHEAD_DEG]
    return min(ahead, default=(0, "", None), key=lambda found: found[:2])[2]


def _way(here: Location, there: Location) -> tuple[float, float]:
    """Distance in degrees of latitude, and bearing in degrees clockwise from north; good enough for neighbours."""
    east = ((there.longitude - here.longitude + 180) % 360 - 180) * math.cos(math.radians((here.latitude + there.latitude) / 2))
    north = there.latitude - here.latitude
    return math.hypot(east, north), math.degrees(math.atan2(east, north)) % 360


async def _quietly(work: object) -> None:
    try:
        await work  # type: ignore[misc]
    except Exception:
        log.exception("work in the background failed")


def _address(request: web.Request) -> str:
    """Of the device; behind nginx the one that nginx saw."""
    seen = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() if ACCEL in request.app else ""
    return seen or request.remote or ""


def _json(form: Arrived, status: int = 200) -> web.Response:
    return web.Response(body=form.model_dump_json().encode(), status=status, content_type="application/json")
