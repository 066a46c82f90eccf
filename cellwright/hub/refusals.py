"""Kinds of refusal, so that the HTTP API answers with the status that fits, and the client raises the same kind again.

HubRefused              422: the request breaks a rule
├── NotKnown            401: nobody can tell who asks
├── NotAllowed          403: whoever asks may not
├── NotFound            404: there is none, or none that whoever asks may see: nobody can tell which
├── Conflict            409: it cannot be together with what there is
├── Changed             412: it was changed by another since it was read
├── TooLarge            413: more than is taken
├── TooMany             429: a quota of requests is used up; come back later
└── DiskFull            507: the hub has no room left
"""

from __future__ import annotations

from cellwright.errors import HubRefused

__all__ = ["STATUS", "Changed", "Conflict", "DiskFull", "HubRefused", "NotAllowed", "NotFound", "NotKnown", "TooLarge", "TooMany"]


class NotKnown(HubRefused):
    """Nobody can tell who asks."""


class NotAllowed(HubRefused):
    """Whoever asks has no right to it; the message names what is lacking."""


class NotFound(HubRefused):
    """There is no such thing, or none that whoever asks may see."""


class Conflict(HubRefused):
    """It contradicts what is there already."""


class Changed(HubRefused):
    """Another changed it since whoever asks has read it."""


class TooLarge(HubRefused):
    """More than is taken: a body, a chunk, or a tenant's quota."""


class TooMany(HubRefused):
    """Too many requests."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DiskFull(HubRefused):
    """The hub has no room left."""


STATUS: dict[type[HubRefused], int] = {
    NotKnown: 401,
    NotAllowed: 403,
    NotFound: 404,
    Conflict: 409,
    Changed: 412,
    TooLarge: 413,
    TooMany: 429,
    DiskFull: 507,
    HubRefused: 422,
}
