"""Who may ask for a tenant's models: whoever shows a grant by the hub. Verified offline, with the hub's public key alone.

401: no grant, or one that is malformed, forged, expired or taken back. 403: a sound grant for another tenant or model; the answer
follows from the grant and the address alone, so it is the same whether the other exists here or not.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import hdrs, web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cellwright.edge.request import RequestError
from cellwright.errors import GrantRefused
from cellwright.hub.grant import LEEWAY_S, Grant, TakenBack, check
from cellwright.web import bearer

_REMEMBERED = 4_096  # grants whose signature need not be checked again
_NONE = TakenBack()


class Guard:
    """Checks grants. Used from the event loop's thread only."""

    def __init__(self, hub_key: Callable[[], Ed25519PublicKey | None], clock: Callable[[], float] = time.time) -> None:
        """`hub_key`: the key of the moment; None where this edge has not heard from a hub yet."""
        self._hub_key, self._clock = hub_key, clock
        # Grants of a tenant that are believed no more, by the hub's word.
        self.taken_back: Callable[[str], TakenBack] = lambda _tenant: _NONE
        self._seen: OrderedDict[str, Grant] = OrderedDict()
        self._seen_by: Ed25519PublicKey | None = None

    def grant(self, request: web.Request) -> Grant:
        """The grant that a request shows. Raises RequestError (401; 503 where no hub's key is known)."""
        text = bearer.shown(request.headers.get(hdrs.AUTHORIZATION, ""))
        if text is None:
            raise RequestError(
                401, "a grant is needed (Authorization: Bearer …); ask the hub for one (POST /v1/match or /v1/grants)"
            )
        key = self._hub_key()
        if key is None:
            raise RequestError(503, "this edge has not heard from its hub yet and cannot check grants; try again later")
        try:
            grant = self._checked(text, key)
        except GrantRefused as error:
            raise RequestError(401, str(error)) from None
        if self.taken_back(grant.tenant).includes(grant):
            raise RequestError(401, "the grant was taken back; ask the hub for another (POST /v1/match or /v1/grants)")
        return grant

    def tenant(self, request: web.Request, tenant: str, model: str | None = None) -> Grant:
        """The grant, if it is for this tenant (and model). Raises RequestError (401, 403)."""
        grant = self.grant(request)
        if grant.tenant != tenant:
            raise RequestError(403, f"the grant is for models of '{grant.tenant}'; ask the hub for another")
        if model is not None and not grant.allows(tenant, model):
            raise RequestError(403, f"the grant is for {', '.join(grant.models)[:200]}; ask the hub for another")
        return grant

    def _checked(self, text: str, key: Ed25519PublicKey) -> Grant:
        if key != self._seen_by:
            self._seen.clear()
            self._seen_by = key
        now_s = self._clock()
        known = self._seen.get(text)
        if known and known.not_before_s - LEEWAY_S <= now_s < known.expires_s + LEEWAY_S:
            return known
        grant = self._seen[text] = check(text, key, now_s)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return grant
