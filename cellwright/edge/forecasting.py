"""Forecasts over HTTP: the request's body in, the answer of the model that serves it out."""

from __future__ import annotations

import asyncio
import json
from typing import NoReturn

from aiohttp import web

from cellwright.edge.request import RequestError
from cellwright.edge.shelf import Shelf, Snapshot
from cellwright.edge.slots import Slots

_BODY_TIMEOUT_S = 30.0


class Forecasting:
    """POST of a forecast's request (see request.py) to a shelf's models."""

    def __init__(self, shelf: Shelf, slots: Slots, body_bytes: int) -> None:
        self._shelf, self._slots, self._body_bytes = shelf, slots, body_bytes

    @property
    def pending(self) -> int:
        """Forecasts running or waiting."""
        return self._slots.taken

    def add_to(self, router: web.UrlDispatcher, *paths: str) -> None:
        """Serve under these paths."""
        for path in paths:
            router.add_post(path, self.answer)

    def close(self) -> None:
        """Let running forecasts end."""
        self._slots.close()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request."""
        if (request.content_length or 0) > self._body_bytes:
            raise web.HTTPRequestEntityTooLarge(self._body_bytes, request.content_length or 0)
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                body = await request.read()
        except TimeoutError:
            raise RequestError(408, f"the body did not arrive within {_BODY_TIMEOUT_S:g} s") from None
        now = self._shelf.snapshot
        return web.Response(body=await self._slots.run(lambda: respond(now, body)), content_type="application/json")


def respond(snapshot: Snapshot, body: bytes) -> bytes:
    """Answer a forecast's body. Raises RequestError."""
    try:
        request = _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    name = request.get("bundle") if isinstance(request, dict) else None
    return _ENCODER.encode(snapshot.predictor(name).forecast(request)).encode()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number; write null where nothing was measured")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)  # made once: making one costs as much as a small forecast
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
