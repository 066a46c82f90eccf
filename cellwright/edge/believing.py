"""Who shows a token that the edge was told: to tell the truth of the workspace's own models, to read its metrics."""

from __future__ import annotations

import hashlib
import hmac

from aiohttp import hdrs, web

_SCHEME = "bearer "


class Bearer:
    """Whoever shows a token (Authorization: Bearer …); kept as its hash."""

    def __init__(self, token: str) -> None:
        self._sha256 = hashlib.sha256(token.encode()).digest()

    def __call__(self, request: web.Request) -> bool:
        """Whether a request shows it."""
        shown = request.headers.get(hdrs.AUTHORIZATION, "")
        if shown[: len(_SCHEME)].lower() != _SCHEME:
            return False
        found = shown[len(_SCHEME) :].strip().encode(errors="surrogateescape")  # a header may hold any bytes
        return hmac.compare_digest(hashlib.sha256(found).digest(), self._sha256)
