"""Counters of an edge in Prometheus' text format, recorded after each response has been sent."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from cellwright.edge.access_log import ACCESS, write

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Requests, latencies and bytes, by method, route and status."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._bytes: dict[str, int] = defaultdict(int)
        self._buckets: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS_S) + 1))
        self._seconds: dict[str, float] = defaultdict(float)

    def record(self, method: str, route: str, status: int, sent_bytes: int, seconds: float) -> None:
        """Count one response."""
        with self._lock:
            self._requests[method, route, status] += 1
            self._bytes[route] += sent_bytes
            self._buckets[route][bisect_left(BUCKETS_S, seconds)] += 1
            self._seconds[route] += seconds

    def text(self, gauges: dict[str, tuple[str, float]]) -> str:
        """Everything recorded, and `gauges`: name -> (help, value now)."""
        with self._lock:
            lines = [*self._counters(), *self._histograms()]
        for name, (explained, value) in gauges.items():
            lines += [f"# HELP {name} {explained}", f"# TYPE {name} gauge", f"{name} {value:g}"]
        return "\n".join(lines) + "\n"

    def _counters(self) -> Iterable[str]:
        yield "# HELP cellwright_edge_requests_total Responses sent."
        yield "# TYPE cellwright_edge_requests_total counter"
        for (method, route, status), count in sorted(self._requests.items()):
            yield f'cellwright_edge_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
        yield "# HELP cellwright_edge_sent_bytes_total Bytes of response bodies."
        yield "# TYPE cellwright_edge_sent_bytes_total counter"
        for route, sent in sorted(self._bytes.items()):
            yield f'cellwright_edge_sent_bytes_total{{route="{route}"}} {sent}'

    def _histograms(self) -> Iterable[str]:
        name = "cellwright_edge_request_seconds"
        yield f"# HELP {name} From the request's head to the response's last byte."
        yield f"# TYPE {name} histogram"
        for route, counts in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*BUCKETS_S, "+Inf"), counts, strict=True):
                total += count
                yield f'{name}_bucket{{route="{route}",le="{bound}"}} {total}'
            yield f'{name}_sum{{route="{route}"}} {self._seconds[route]:.6f}'
            yield f'{name}_count{{route="{route}"}} {total}'


METRICS = web.AppKey("metrics", Metrics)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE"})


class Recorder(AbstractAccessLogger):
    """aiohttp calls this once a response is out; routes and methods are folded so that the series stay few."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Record one response."""
        if not isinstance(request, web.Request):
            return  # a connection that broke off before it was a request
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unknown"
        method = request.method if request.method in _METHODS else "other"
        sent = 0 if method == "HEAD" else response.content_length or 0
        request.app[METRICS].record(method, route, response.status, sent, time)
        if request.app.get(ACCESS):
            write(request, response, time, route, sent)
