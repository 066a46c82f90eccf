"""What each edge shall hold: computed from rules and publications, kept with a revision that grows with each change.

A rule selects the edges that it names and those that lie in its areas; all edges where it names neither. An edge holds every version
that a publication gives a share, of every model that a rule puts there. States are computed in the transaction of the change, so an
edge sees all of a change or nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa

from cellwright.hub import tables
from cellwright.hub.contract import (
    OPERATOR,
    Area,
    Desired,
    DesiredModel,
    DesiredTenant,
    DesiredVersion,
    Edge,
    EdgeForm,
    Heartbeat,
    PlacementRule,
    Publication,
)
from cellwright.hub.geometry import covers

_CACHED = 8192  # documents that are remembered parsed; they are frozen, and their text is the key
_desired = lru_cache(maxsize=_CACHED)(Desired.model_validate_json)
_edge_form = lru_cache(maxsize=_CACHED)(EdgeForm.model_validate_json)
_heartbeat = lru_cache(maxsize=_CACHED)(Heartbeat.model_validate_json)
_rule = lru_cache(maxsize=_CACHED)(PlacementRule.model_validate_json)

Areas = Mapping[tuple[str, str], Area]  # (tenant, name) -> area


@dataclass(frozen=True)
class _Placed:
    """A model on an edge: by which rules."""

    pinned: bool
    priority: int


def refresh(connection: sa.Connection, hub_key: str) -> int:
    """Compute all edges' states anew; those that are others than before get the next revision. Returns how many."""
    edges = all_edges(connection)
    if not edges:
        return 0
    world = _World(connection, hub_key)
    changed = 0
    t = tables.edges
    states = all_desired(connection)
    for edge in edges:
        now, before = world.desired(edge), states[edge.name]
        if now.model_copy(update={"revision": before.revision}) != before:
            after = now.model_copy(update={"revision": edge.revision + 1})
            values = {"desired": after.model_dump_json(), "revision": after.revision}
            connection.execute(sa.update(t).where(t.c.name == edge.name).values(**values))
            changed += 1
    return changed


def desired_of(connection: sa.Connection, edge: str) -> Desired | None:
    """What an edge shall hold; None: there is no such edge."""
    t = tables.edges
    found = connection.execute(sa.select(t.c.desired).where(t.c.name == edge)).scalar_one_or_none()
    return None if found is None else _desired(found)


def revision_of(connection: sa.Connection, edge: str) -> int | None:
    """The revision of an edge's state; None: there is no such edge."""
    t = tables.edges
    return connection.execute(sa.select(t.c.revision).where(t.c.name == edge)).scalar_one_or_none()


def holders(connection: sa.Connection, tenant: str, model: str) -> tuple[Edge, ...]:
    """Edges that shall hold a model."""
    states = all_desired(connection)

    def holds(state: Desired) -> bool:
        return any(t.tenant == tenant and any(m.name == model for m in t.models) for t in state.tenants)

    return tuple(edge for edge in all_edges(connection) if holds(states[edge.name]))


def all_desired(connection: sa.Connection) -> dict[str, Desired]:
    """What each edge shall hold, by its name."""
    rows = connection.execute(sa.select(tables.edges.c.name, tables.edges.c.desired))
    return {row.name: _desired(row.desired) for row in rows}


def all_edges(connection: sa.Connection) -> tuple[Edge, ...]:
    """All edges, by name; `alive` is for edges.py to say."""
    rows = connection.execute(sa.select(tables.edges).order_by(tables.edges.c.name)).mappings()
    return tuple(edge_of(row) for row in rows)


def edge_of(row: sa.RowMapping) -> Edge:
    """An edge from its row."""
    form = _edge_form(row["document"])
    beat = None if row["heartbeat"] is None else _heartbeat(row["heartbeat"])
    same = {"name": row["name"], "registered_s": row["registered_s"], "seen_s": row["seen_s"], "revision": row["revision"]}
    return Edge(**form.model_dump(), **same, alive=True, heartbeat=beat)


def all_areas(connection: sa.Connection, tenant: str | None = None) -> Areas:
    """All areas; with `tenant` those that it may name: its own and the operator's."""
    t = tables.areas
    wanted = sa.select(t.c.document).order_by(t.c.tenant, t.c.name)
    if tenant is not None:
        wanted = wanted.where(t.c.tenant.in_((tenant, OPERATOR)))
    areas = (Area.model_validate_json(row) for row in connection.execute(wanted).scalars())
    return {(area.tenant, area.name): area for area in areas}


def area_named(areas: Areas, tenant: str, name: str) -> Area | None:
    """A tenant's own area of that name, else the operator's."""
    return areas.get((tenant, name)) or areas.get((OPERATOR, name))


def selects(rule: PlacementRule, edge: Edge, areas: Areas) -> bool:
    """Whether a rule puts its model on an edge."""
    if not rule.areas and not rule.edges:
        return True
    named = (area_named(areas, rule.tenant, name) for name in rule.areas)
    return edge.name in rule.edges or any(area is not None and covers(area.geometry, edge.location) for area in named)


class _World:
    """All that states follow from, read once."""

    def __init__(self, connection: sa.Connection, hub_key: str) -> None:
        self._hub_key = hub_key
        self._areas = all_areas(connection)
        documents = connection.execute(sa.select(tables.rules.c.document)).scalars()
        self._rules = [_rule(row) for row in documents]
        self._published = {
            (row.tenant, row.model): Publication.model_validate_json(row.document)
            for row in connection.execute(sa.select(tables.publications).where(tables.publications.c.document.is_not(None)))
        }
        m = tables.models
        self._shared = set(map(tuple, connection.execute(sa.select(m.c.tenant, m.c.name).where(m.c.visibility == "shared"))))
        r = tables.releases
        self._releases = {
            (row.tenant, row.model, row.version): (row.digest, row.bytes)
            for row in connection.execute(sa.select(r.c.tenant, r.c.model, r.c.version, r.c.digest, r.c.bytes))
        }
        self._keys: dict[str, list[str]] = defaultdict(list)
        for row in connection.execute(sa.select(tables.keys).order_by(tables.keys.c.tenant, tables.keys.c.id)):
            self._keys[row.tenant].append(row.pem)

    def desired(self, edge: Edge) -> Desired:
        """An edge's state; its revision is for whoever compares it."""
        by_tenant: dict[str, list[DesiredModel]] = defaultdict(list)
        for (tenant, model), placed in sorted(self._placed(edge).items()):
            by_tenant[tenant].append(self._model(tenant, model, placed))
        tenants = tuple(
            DesiredTenant(
                tenant=tenant, keys=(self._hub_key, *(k for k in self._keys[tenant] if k != self._hub_key)), models=tuple(m)
            )
            for tenant, m in by_tenant.items()
        )
        return Desired(edge=edge.name, revision=0, hub_key=self._hub_key, tenants=tenants)

    def _placed(self, edge: Edge) -> dict[tuple[str, str], _Placed]:
        found: dict[tuple[str, str], _Placed] = {}
        for (tenant, model), rule in self._live(self._rules):
            if selects(rule, edge, self._areas):
                before = found.get((tenant, model), _Placed(False, rule.priority))
                found[tenant, model] = _Placed(before.pinned or rule.pinned, max(before.priority, rule.priority))
        return found

    def _live(self, rules: Iterable[PlacementRule]) -> Iterator[tuple[tuple[str, str], PlacementRule]]:
        """Rules on models that are published, and shared where they are another's."""
        for rule in rules:
            meant = (rule.owner or rule.tenant, rule.model)
            if meant in self._published and (meant[0] == rule.tenant or meant in self._shared):
                yield meant, rule

    def _model(self, tenant: str, model: str, placed: _Placed) -> DesiredModel:
        publication = self._published[tenant, model]
        versions = []
        for version, share in publication.shares.items():
            digest, size = self._releases[tenant, model, version]
            versions.append(
                DesiredVersion(version=version, digest=digest, bytes=size, weight=round(share, 9), pinned=placed.pinned)
            )
        return DesiredModel(
            name=model, latest=publication.version, canary=publication.canary, priority=placed.priority, versions=tuple(versions)
        )
