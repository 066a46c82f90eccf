"""Who may ask the network: bearer tokens with scopes, two-legged (a client) or three-legged (a client on behalf of one device)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from cellwright.qos.simulator.refusal import Refusal

SCOPES = frozenset(
    {
        "quality-on-demand:sessions:create",
        "quality-on-demand:sessions:read",
        "quality-on-demand:sessions:update",
        "quality-on-demand:sessions:delete",
        "quality-on-demand:sessions:retrieve-by-device",
        "qos-profiles:read",
        "simple-edge-discovery:read",
    }
)
CONTROL = "simulator:control"
_UNKNOWN = "Request not authenticated due to missing, invalid, or expired credentials. A new authentication is required."


@dataclass(frozen=True)
class Grant:
    """What a token stands for. `device`: name of the device, where the token is three-legged."""

    client: str
    scopes: frozenset[str] = SCOPES
    device: str | None = None


class Access:
    """The tokens of a network; only their hashes are kept."""

    def __init__(self) -> None:
        self._grants: dict[bytes, Grant] = {}

    def new(self, grant: Grant, token: str | None = None) -> str:
        """A token for a grant; one that the caller brings must be long enough not to be guessed."""
        made = token or secrets.token_urlsafe(32)
        self._grants[_hash(made)] = grant
        return made

    def check(self, authorization: str, scope: str) -> Grant:
        """What the header's token stands for. Raises Refusal: 401 nobody, 403 not for this."""
        kind, _, token = authorization.partition(" ")
        shown = _hash(token.strip())
        found = None
        for known, grant in self._grants.items():  # all of them, so that the time tells nothing
            found = grant if hmac.compare_digest(known, shown) else found
        if found is None or kind.lower() != "bearer":
            raise Refusal(401, "UNAUTHENTICATED", _UNKNOWN)
        if scope not in found.scopes:
            raise Refusal(403, "PERMISSION_DENIED", "Client does not have sufficient permissions to perform this action.")
        return found


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
