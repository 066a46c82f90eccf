"""The FMLMS as an HTTP API: interface 1 for clients, interface 2 for nodes (M.3387 clause 7). OpenAPI at /openapi.json.

Whoever asks shows a bearer token (tokens.py). A client sees its own requests alone, a node itself alone; an operator everything.
"""

from __future__ import annotations

from fastapi import FastAPI

from cellwright import __version__
from cellwright.federation.management import api_clients, api_nodes, problems
from cellwright.federation.management.access import Service
from cellwright.federation.management.service import Fmlms
from cellwright.web.bounded import Bounded
from cellwright.web.problems import PROBLEM

MOST_BODY_BYTES = 1 << 20


def create_app(service: Fmlms, *, most_body_bytes: int = MOST_BODY_BYTES) -> FastAPI:
    """The API over an open FMLMS; whoever made that closes it."""
    app = FastAPI(
        title="Cellwright FMLMS",
        version=__version__,
        description="Federated machine learning management system (ITU-T M.3387): requests of clients, and nodes that train.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        responses=dict.fromkeys((401, 403, 404, 409, 413, 422), PROBLEM),
    )
    app.state.service = service
    problems.add_to(app)
    app.add_middleware(Bounded, most_bytes=most_body_bytes)
    app.include_router(api_clients.router)
    app.include_router(api_nodes.router)
    app.add_api_route("/healthz", _healthy, methods=["GET"], tags=["operation"], summary="Whether the FMLMS answers")
    return app


def _healthy(service: Service) -> dict[str, str]:
    """The database is read, so that a broken one is seen."""
    service.links()
    return {"status": "ok", "version": __version__}
