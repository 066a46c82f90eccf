"""Errors as RFC 9457 problem details (application/problem+json): title, status, and a detail that says what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import web

from cellwright.edge.request import RequestError

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A problem response; its type is about:blank, so the title is the status's own phrase."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return web.Response(status=status, body=json.dumps(body).encode(), headers=headers, content_type="application/problem+json")


_HEADERS: dict[int, Mapping[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'Bearer realm="cellwright"'},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "1"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem; what is not foreseen is logged and says nothing of the inside."""
    try:
        return await handler(request)
    except RequestError as error:
        return problem(error.status, str(error), _HEADERS.get(error.status))
    except web.HTTPRequestEntityTooLarge:
        return problem(413, f"the body is larger than {request.client_max_size} bytes; ask for fewer sites at once")
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return problem(error.status, f"{request.method} {request.path[:200]}: {error.reason}", allow)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return problem(500, "the edge failed to answer; its log says why")
