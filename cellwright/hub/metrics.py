"""Counters of the hub in Prometheus' text format. Routes are templates and no tenant is named; still they are not for tenants, who
could tell from them when another uploads and publishes."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from starlette.types import ASGIApp, Receive, Scope, Send

from cellwright.hub import tables
from cellwright.hub.retention import dropped
from cellwright.hub.service import Hub

BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})


@dataclass
class Counts:
    """What was answered."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: dict[tuple[str, str, int], int] = field(default_factory=lambda: defaultdict(int))
    buckets: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0] * (len(BUCKETS_S) + 1)))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        with self.lock:
            self.requests[method, route, status] += 1
            self.buckets[route][bisect_left(BUCKETS_S, seconds)] += 1
            self.seconds[route] += seconds


class Counting:
    """ASGI middleware that counts answers by method, route and status."""

    def __init__(self, app: ASGIApp, counts: Counts) -> None:
        self._app, self._counts = app, counts

    @staticmethod
    def empty() -> Counts:
        """Nothing counted yet."""
        return Counts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def sent(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message["status"] if message["type"] == "http.response.start" else status
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            method = scope["method"] if scope["method"] in METHODS else "(other)"  # labels are ours, so they are few
            self._counts.record(method, route, status, time.perf_counter() - started)


def text_of(hub: Hub, counts: Counts) -> str:
    """Everything counted, and what there is now."""
    with counts.lock:
        lines = [*_requests(counts), *_latencies(counts)]
    for name, (told, value) in _gauges(hub).items():
        lines += [f"# HELP {name} {told}", f"# TYPE {name} gauge", f"{name} {value}"]
    name, total = "cellwright_hub_fetches_total", _fetches_ever(hub)
    lines += [f"# HELP {name} Fetch reports taken, with those not kept any more.", f"# TYPE {name} counter", f"{name} {total}"]
    return "\n".join(lines) + "\n"


def _requests(counts: Counts) -> Iterator[str]:
    yield "# HELP cellwright_hub_requests_total Answers given."
    yield "# TYPE cellwright_hub_requests_total counter"
    for (method, route, status), count in sorted(counts.requests.items()):
        yield f'cellwright_hub_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'


def _latencies(counts: Counts) -> Iterator[str]:
    name = "cellwright_hub_request_seconds"
    yield f"# HELP {name} From the first byte of the request to the last of the answer."
    yield f"# TYPE {name} histogram"
    for route, found in sorted(counts.buckets.items()):
        total = 0
        for limit, count in zip((*BUCKETS_S, "+Inf"), found, strict=True):
            total += count
            yield f'{name}_bucket{{route="{route}",le="{limit}"}} {total}'
        yield f'{name}_sum{{route="{route}"}} {counts.seconds[route]:.6f}'
        yield f'{name}_count{{route="{route}"}} {total}'


def _fetches_ever(hub: Hub) -> int:
    with hub.store.read() as connection:
        kept = connection.execute(sa.select(sa.func.count()).select_from(tables.fetches)).scalar_one()
        return int(kept) + dropped(connection, tables.fetches)


def _gauges(hub: Hub) -> dict[str, tuple[str, int]]:
    with hub.store.read() as connection:

        def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one())

        alive_since = hub.clock() - hub.settings.alive_s
        return {
            "cellwright_hub_tenants": ("Tenants.", count(tables.tenants)),
            "cellwright_hub_models": ("Models.", count(tables.models)),
            "cellwright_hub_releases": ("Releases.", count(tables.releases)),
            "cellwright_hub_uploads_open": ("Uploads on their way.", count(tables.uploads)),
            "cellwright_hub_edges": ("Edges that have registered.", count(tables.edges)),
            "cellwright_hub_edges_alive": ("Edges heard of lately.", count(tables.edges, tables.edges.c.seen_s >= alive_since)),
            "cellwright_hub_fetches": ("Fetch reports kept (hub.retention_days).", count(tables.fetches)),
        }
