"""What the hub's word means for one model: which versions, which is the latest, which is on trial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cellwright.edge.uses import Key
from cellwright.hub.contract import DesiredModel


@dataclass(frozen=True)
class Want:
    """A version that shall be held."""

    key: Key
    digest: str
    bytes: int
    pinned: bool
    priority: int
    latest: bool
    tried: bool


def wants_of(tenant: str, model: DesiredModel) -> Iterable[Want]:
    """The versions of a model that shall be held."""
    challenger = challenger_of(model)
    for v in model.versions:
        tried = challenger is not None and challenger[0] == v.version
        latest = v.version == model.latest
        yield Want(Key(tenant, model.name, v.version), v.digest, v.bytes, v.pinned, model.priority, latest, tried)


def challenger_of(model: DesiredModel) -> tuple[str, float] | None:
    """The version on trial and its weight: the canary, else whichever other version has the largest share."""
    others = {v.version: v.weight for v in model.versions if v.version != model.latest}
    if model.canary in others:
        return str(model.canary), others[str(model.canary)]
    largest = max(others, key=lambda version: (others[version], version), default=None)
    return (largest, others[largest]) if largest is not None and others[largest] > 0 else None
