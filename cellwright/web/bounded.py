"""ASGI middleware: how large a body may be, and how long it may take to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from cellwright.web.problems import problem


class Bounded:
    """Bodies of at most `most_bytes`, declared or not, each part of which comes within `part_s`.

    `larger(scope)`: another bound for some requests (a chunk of an upload).
    """

    def __init__(
        self, app: ASGIApp, most_bytes: int, part_s: float | None = None, larger: Callable[[Scope], int] | None = None
    ) -> None:
        self._app, self._most_bytes, self._part_s, self._larger = app, most_bytes, part_s, larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = max(self._most_bytes, self._larger(scope) if self._larger else 0)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > most:
            await problem(413, _words(most))(scope, receive, send)
            return
        await self._app(scope, self._counting(receive, most), send)

    def _counting(self, receive: Receive, most: int) -> Receive:
        seen_bytes, coming = 0, True

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen_bytes, coming
            message = await self._part(receive) if coming else await receive()
            coming = message.get("more_body", False)
            seen_bytes += len(message.get("body", b""))
            if seen_bytes > most:
                raise HTTPException(413, _words(most))
            return message

        return counted

    async def _part(self, receive: Receive) -> MutableMapping[str, Any]:
        try:
            async with asyncio.timeout(self._part_s):
                return await receive()
        except TimeoutError:
            raise HTTPException(408, f"nothing of the body came for {self._part_s:g} s; send it again") from None


def _words(most_bytes: int) -> str:
    return f"a body has at most {most_bytes:,} bytes here; send less at once"
