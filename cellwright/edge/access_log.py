"""Access logs: one JSON object a line, in OpenTelemetry's log data model with the names of its HTTP conventions.

A request's `traceparent` (W3C Trace Context) is passed on as TraceId and SpanId, so that a collector joins the line to its trace. Never
written: query strings, grants, bodies.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any

from aiohttp import web

log = logging.getLogger("cellwright.edge.access")
_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_MOST = 300  # characters of what a client chooses
ACCESS: web.AppKey[bool] = web.AppKey("access")  # whether lines are written


def to_stdout() -> None:
    """Write the lines to standard output, and nothing else with them."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)


def line(request: web.Request, response: web.StreamResponse, seconds: float, route: str, sent_bytes: int) -> dict[str, Any]:
    """One response."""
    found: dict[str, Any] = {
        "Timestamp": time.time_ns(),
        "SeverityText": "ERROR" if response.status >= 500 else "INFO",
        "Body": f"{request.method} {route} {response.status}"[:_MOST],
        "Attributes": {
            "http.request.method": request.method[:_MOST],
            "http.route": route,
            "url.path": request.path[:_MOST],
            "http.response.status_code": response.status,
            "http.response.body.size": sent_bytes,
            "http.server.request.duration": round(seconds, 6),
            "client.address": request.remote or "",
            "user_agent.original": request.headers.get("User-Agent", "")[:_MOST],
        },
        "Resource": {"service.name": "cellwright-edge"},
    }
    if trace := _TRACE.fullmatch(request.headers.get("traceparent", "")[:_MOST]):
        found |= {"TraceId": trace[1], "SpanId": trace[2], "TraceFlags": int(trace[3], 16)}
    return found


def write(request: web.Request, response: web.StreamResponse, seconds: float, route: str, sent_bytes: int) -> None:
    """Log one response."""
    log.info("%s", json.dumps(line(request, response, seconds, route, sent_bytes), separators=(",", ":")))
