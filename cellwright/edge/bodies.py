"""JSON bodies of requests, read within a time and a size, and checked against a form."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from cellwright.edge.request import RequestError
from cellwright.hub.contract import Wire

BODY_TIMEOUT_S = 30.0
_Form = TypeVar("_Form", bound=Wire)


async def parsed(request: web.Request, form: type[_Form]) -> _Form:
    """The body as a form. Raises RequestError (400, 408); larger than `client_max_size` is 413."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            content = await request.read()
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    try:
        return form.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise RequestError(400, f"{where}: {first['msg']}"[:500]) from None
