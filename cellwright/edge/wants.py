"""What the hub's word means for one model: which versions, which is the latest, which is on trial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cellwright.edge.uses import Key
from cellwright.hub.contract import DesiredModel, Terms


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
        tried = challenger is not None and challenger.version == v.version
        latest = v.version == model.latest
        yield Want(Key(tenant, model.name, v.version), v.digest, v.bytes, v.pinned, model.priority, latest, tried)


@dataclass(frozen=True)
class Challenger:
    """A version on trial."""

    version: str
    weight: float
    terms: Terms


def challenger_of(model: DesiredModel) -> Challenger | None:
    """The version on trial: the canary, also one of weight 0, else whichever other version has the largest share."""
    others = {v.version: v.weight for v in model.versions if v.version != model.latest}
    if model.canary in others:
        return Challenger(str(model.canary), others[str(model.canary)], model.terms or Terms())
    largest = max(others, key=lambda version: (others[version], version), default=None)
    return Challenger(largest, others[largest], Terms()) if largest is not None and others[largest] > 0 else None
