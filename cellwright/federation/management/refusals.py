"""Kinds of refusal, so that the HTTP API can answer with the status that fits.

Refused                 422: the request or the node breaks a rule
├── NotAllowed          403: whoever asks may not
├── NotFound            404: there is none, or none that whoever asks may see
├── Conflict            409: it cannot be together with what there is
└── TooLarge            413: more at once than is taken
"""

from __future__ import annotations

from cellwright.errors import Refused


class NotAllowed(Refused):
    """Whoever asks has no right to it; the message names the rule."""


class NotKnown(NotAllowed):
    """Nobody can tell who asks."""


class NotFound(Refused):
    """There is no such thing, or none that whoever asks may see."""


class TooLarge(Refused):
    """One thing is larger than any may be."""


class Conflict(Refused):
    """It contradicts what is there already."""
