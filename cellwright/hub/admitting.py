"""ASGI middleware: who is not known is refused before a byte of their body is read or parsed.

FastAPI reads a body before it asks for whom; with this, the identity is found first and kept for access.py.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from cellwright.errors import CellwrightError
from cellwright.hub.core import Who
from cellwright.hub.refusals import NotKnown
from cellwright.hub.service import Hub
from cellwright.web import bearer

_UNSHOWN = "a bearer token is needed (Authorization: Bearer cwh_…); ask the operator for one"


class Admitting:
    """Requests with a body need a token that is known."""

    def __init__(self, app: ASGIApp, hub: Hub, answer: Callable[[Request, CellwrightError], JSONResponse]) -> None:
        self._app, self._hub, self._answer = app, hub, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _has_body(scope):
            request = Request(scope)
            try:
                scope.setdefault("state", {})["who"] = await run_in_threadpool(identified, self._hub, request)
            except CellwrightError as error:
                await self._answer(request, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def identified(hub: Hub, request: Request) -> Who:
    """Whom a request's bearer token stands for; counted once a request. Raises NotKnown, TooMany."""
    known = getattr(request.state, "who", None)
    if isinstance(known, Who):
        return known
    token = bearer.shown(request.headers.get("Authorization", ""))
    if token is None:
        raise NotKnown(_UNSHOWN)
    return hub.authenticate(token)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
