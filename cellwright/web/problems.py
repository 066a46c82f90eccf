"""Errors of an API as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from cellwright.errors import CellwrightError

Answer = Callable[[Request, CellwrightError], JSONResponse]  # to an error of ours: which status, and what may be told
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


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem response; its type is about:blank, so the title is the status's own phrase."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def add_to(app: FastAPI, kind: type[CellwrightError], answer: Answer, whose: str) -> None:
    """Answer every error of an app with a problem; errors of `kind` as `answer` says, what is not foreseen without its inside."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, CellwrightError):
            raise error
        return answer(request, error)

    async def unforeseen(_request: Request, _error: Exception) -> JSONResponse:
        return problem(500, f"{whose} failed to answer; its log says why")

    app.add_exception_handler(kind, ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, unforeseen)


async def _validation(_request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    lines = [f"{'.'.join(str(part) for part in e['loc'][1:]) or e['loc'][0]}: {e['msg']}" for e in found]
    return problem(422, "; ".join(lines))


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    detail = str(error.detail)
    words = detail if detail != HTTPStatus(error.status_code).phrase else f"{request.method} {request.url.path[:200]}: {detail}"
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(request)):
        headers["Allow"] = ", ".join(sorted(methods))
    return problem(error.status_code, words, headers)


def _methods(request: Request) -> set[str]:
    """All that an address takes (RFC 9110, 10.2.1), by the API's own description; the router names those of one route alone."""
    paths = request.app.openapi()["paths"]
    return {method.upper() for path, how in paths.items() if compile_path(path)[0].match(request.url.path) for method in how}
