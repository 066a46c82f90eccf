"""Errors of the API as RFC 9457 problem details, and the bound on what a client may send."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from cellwright.errors import FederationError, Refused
from cellwright.federation.management.refusals import Conflict, NotAllowed, NotFound, NotKnown, TooLarge

log = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[FederationError], int], ...] = (
    (NotKnown, 401),
    (NotAllowed, 403),
    (NotFound, 404),
    (Conflict, 409),
    (TooLarge, 413),
    (Refused, 422),
    (FederationError, 503),
)
PROBLEM = {
    "description": "What was expected, what was found and what to do (RFC 9457)",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
            }
        }
    },
}


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem response; its type is about:blank, so the title is the status's own phrase."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def add_to(app: FastAPI) -> None:
    """Answer every error of an app with a problem; what is not foreseen says nothing of the inside."""
    app.add_exception_handler(FederationError, _federation)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


class Bounded:
    """ASGI middleware: bodies of at most `most_bytes`, declared or not."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._most_bytes:
            await self._too_large()(scope, receive, send)
            return
        await self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        seen_bytes = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen_bytes
            message = await receive()
            seen_bytes += len(message.get("body", b""))
            if seen_bytes > self._most_bytes:
                raise HTTPException(413, self._words)
            return message

        return counted

    def _too_large(self) -> JSONResponse:
        return problem(413, self._words)

    @property
    def _words(self) -> str:
        return f"a body has at most {self._most_bytes:,} bytes here; send less at once"


async def _federation(request: Request, error: Exception) -> JSONResponse:
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        log.error("%s %s: %s", request.method, request.url.path, error)
        return problem(status, "the management system cannot answer now; its log says why")
    return problem(status, str(error), {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None)


async def _validation(_request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    lines = [f"{'.'.join(str(part) for part in e['loc'][1:]) or e['loc'][0]}: {e['msg']}" for e in found]
    return problem(422, "; ".join(lines))


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    detail = str(error.detail)
    words = detail if detail != HTTPStatus(error.status_code).phrase else f"{request.method} {request.url.path[:200]}: {detail}"
    return problem(error.status_code, words, dict(error.headers or {}))


async def _unforeseen(_request: Request, _error: Exception) -> JSONResponse:
    return problem(500, "the management system failed to answer; its log says why")
