"""The hub as an HTTP API. OpenAPI at /openapi.json; whoever asks shows a bearer token (tokens.py, access.py).

A tenant is who its token says: no address names the tenant that asks, so none can ask in another's name.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from cellwright import __version__
from cellwright.errors import BundleError, CellwrightError, HubRefused, WorkspaceError
from cellwright.hub import api_edges, api_models, api_reports, api_tenants, api_uploads
from cellwright.hub.access import Measurer, TheHub
from cellwright.hub.admitting import Admitting
from cellwright.hub.metrics import Counting, text_of
from cellwright.hub.refusals import STATUS, NotKnown, TooMany
from cellwright.hub.service import Hub
from cellwright.web import problems
from cellwright.web.bounded import Bounded

log = logging.getLogger(__name__)
MOST_BODY_BYTES = 4 << 20
PART_S = 30.0  # longest silence within a body
_router = APIRouter(tags=["operation"])


def create_app(hub: Hub, *, part_s: float = PART_S) -> FastAPI:
    """The API over an open hub; whoever made that closes it."""
    app = FastAPI(
        title="Cellwright hub",
        version=__version__,
        description="Model management as a service (3GPP TR 22.874, 6.2): models of tenants, placed at edges, matched to devices.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        responses=dict.fromkeys((400, 401, 403, 404, 408, 409, 412, 413, 422, 429, 503, 507), problems.PROBLEM),
    )
    app.state.hub = hub
    app.state.counts = counts = Counting.empty()
    problems.add_to(app, CellwrightError, _answer, "the hub")
    app.add_middleware(Admitting, hub=hub, answer=_answer)
    app.add_middleware(Bounded, most_bytes=MOST_BODY_BYTES, part_s=part_s, larger=api_uploads.most_bytes)
    app.add_middleware(Counting, counts=counts)
    for router in (api_tenants.router, api_models.router, api_uploads.router, api_edges.router, api_reports.router, _router):
        app.include_router(router)
    return app


@_router.get("/v1/hub", summary="The hub's public key, which verifies grants and wrapped models")
def about(hub: TheHub) -> dict[str, str]:
    """No token is needed: the key is public."""
    return {"key": hub.key_pem, "version": __version__}


@_router.get("/healthz", summary="Whether the hub answers")
def alive() -> dict[str, str]:
    """The process is there."""
    return {"status": "ok", "version": __version__}


@_router.get("/readyz", summary="Whether the hub can use its database and its blobs")
def ready(hub: TheHub) -> Response:
    """Both are tried."""
    try:
        hub.check()
    except CellwrightError as error:
        log.warning("not ready: %s", error)
        return problems.problem(503, "the database or the blobs cannot be used; the hub's log says why")
    return JSONResponse({"status": "ready"})


@_router.get("/metrics", response_class=PlainTextResponse, summary="Counters, for Prometheus (scope metrics:read, or operator)")
def metrics(hub: TheHub, _who: Measurer, request: Request) -> str:
    """Requests, releases, uploads, edges."""
    return text_of(hub, request.app.state.counts)


def _answer(request: Request, error: CellwrightError) -> JSONResponse:
    """Refusals in their own words; what is the hub's own trouble goes to its log."""
    if isinstance(error, TooMany):
        return problems.problem(429, str(error), {"Retry-After": str(math.ceil(error.retry_after_s))})
    if isinstance(error, HubRefused):
        status = next(code for kind, code in STATUS.items() if isinstance(error, kind))
        headers: dict[str, Any] | None = {"WWW-Authenticate": "Bearer"} if isinstance(error, NotKnown) else None
        return problems.problem(status, str(error), headers)
    if isinstance(error, BundleError):
        return problems.problem(422, str(error))
    log.error("%s %s: %s", request.method, request.url.path, error)
    if isinstance(error, WorkspaceError):
        return problems.problem(507, "the hub has no room left, or cannot write where it keeps models; what was there stays")
    return problems.problem(503, "the hub cannot answer now; its log says why", {"Retry-After": "5"})
