"""Who shows a token that the edge was told: to tell the truth of the workspace's own models, to read its metrics."""

from __future__ import annotations

import hashlib
import hmac

from aiohttp import hdrs, web

from cellwright.web import bearer


class Bearer:
    """Whoever shows a token (Authorization: Bearer …); kept as its hash."""

    def __init__(self, token: str) -> None:
        self._sha256 = hashlib.sha256(token.encode()).digest()

    def __call__(self, request: web.Request) -> bool:
        """Whether a request shows it."""
        found = bearer.shown(request.headers.get(hdrs.AUTHORIZATION, ""))
        if found is None:
            return False
        sha256 = hashlib.sha256(found.encode(errors="surrogateescape"))  # a header may hold any bytes
        return hmac.compare_digest(sha256.digest(), self._sha256)
