"""Every answer of the network: the correlator that came goes back, errors have the standard's form, and faults that were asked for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Middleware

from cellwright.qos.forms import CORRELATOR
from cellwright.qos.simulator.refusal import Refusal, invalid

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "PAYLOAD_TOO_LARGE", 429: "TOO_MANY_REQUESTS", 503: "UNAVAILABLE"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an operation. `lose_answer`: it is carried out, and the connection breaks before the answer."""

    status: int | None = None
    retry_after_s: int | None = None
    lose_answer: bool = False


@dataclass
class Faults:
    """Faults that wait for their operation, first come, first served."""

    waiting: dict[str, list[Fault]] = field(default_factory=dict)

    def add(self, operation: str, fault: Fault, times: int = 1) -> None:
        """Let an operation (its name in the standard) fail so many times."""
        self.waiting.setdefault(operation, []).extend([fault] * times)

    def take(self, operation: str) -> Fault | None:
        """The next fault of an operation, if one waits."""
        waiting = self.waiting.get(operation)
        return waiting.pop(0) if waiting else None


def problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error in the standard's form."""
    return web.json_response({"status": status, "code": code, "message": message}, status=status, headers=headers)


def middleware(faults: Faults, counts: Counter[tuple[str, int]]) -> Middleware:
    """Answers of one network; `counts` them by operation and status."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        correlator = request.headers.get("x-correlator")
        good = correlator is None or CORRELATOR.match(correlator) is not None
        operation = request.match_info.route.name or ""
        fault = faults.take(operation)
        response = await _answered(request, handler, fault, good)
        counts[operation, response.status] += 1
        response.headers["x-correlator"] = correlator if correlator and good else str(uuid4())
        if fault and fault.lose_answer and request.transport:
            request.transport.abort()
        return response

    return answer


async def _answered(request: web.Request, handler: Handler, fault: Fault | None, good: bool) -> web.StreamResponse:
    try:
        if not good:
            raise invalid("x-correlator has at most 256 of the characters that the standard allows.")
        if fault and fault.status:
            after = {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s is not None else None
            return problem(fault.status, _CODES.get(fault.status, "INTERNAL"), "This answer was asked for.", after)
        return await handler(request)
    except Refusal as refusal:
        shown = {"WWW-Authenticate": "Bearer"} if refusal.status == HTTPStatus.UNAUTHORIZED else None
        return problem(refusal.status, refusal.code, str(refusal), shown)
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return problem(error.status, _CODES.get(error.status, "INVALID_ARGUMENT"), error.reason, allow)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return problem(500, "INTERNAL", "The network failed to answer; its log says why.")
