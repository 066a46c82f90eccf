"""The token that a request shows: `Authorization: Bearer <token>` (RFC 6750)."""

from __future__ import annotations

_SCHEME = "bearer "


def shown(authorization: str) -> str | None:
    """The token in the header's value; None: it shows none."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip()
