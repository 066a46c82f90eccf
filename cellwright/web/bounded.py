"""ASGI middleware: how large a body may be, and how long it may take to come: each part of it, and all of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from cellwright.web.problems import problem

PACE_BYTES_S = 16_384


class Bounded:
    """Bodies of at most `most_bytes`, declared or not, each part of which comes within `part_s`; none comes slower than `PACE_BYTES_S`
    but for the first `part_s`, so that bytes that trickle hold a connection no longer than silence does.

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
        seen_bytes, coming, waited_s = 0, True, 0.0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen_bytes, coming, waited_s
            asked_s = time.monotonic()
            message = await self._part(receive) if coming else await receive()
            waited_s += time.monotonic() - asked_s  # for the sender alone, not for the disk
            coming = message.get("more_body", False)
            seen_bytes += len(message.get("body", b""))
            if self._part_s is not None and coming and waited_s > self._part_s + seen_bytes / PACE_BYTES_S:
                raise HTTPException(
                    408, f"the body comes slower than {PACE_BYTES_S} bytes/s; send it again, or go on by a better line"
                )
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
