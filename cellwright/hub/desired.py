"""What each edge shall hold: computed from rules and publications, kept with a revision that grows with each change.

A rule selects the edges that it names and those that lie in its areas; all edges where it names neither. An edge holds every version
that a publication gives a share, of every model that a rule puts there. States are computed in the transaction of the change, so an
edge sees all of a change or nothing.

A state is kept as text, `{"edge":…,"revision":…,` and then what edges that the same rules select have in common (`_Held`). Which rule
selects which edge is a matrix; for each distinct column of it that text is written once, and only texts are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from cellwright.hub import tables
from cellwright.hub.contract import (
    OPERATOR,
    PROTOCOL,
    Area,
    Desired,
    DesiredModel,
    DesiredTenant,
    DesiredVersion,
    Edge,
    EdgeForm,
    Heartbeat,
    Location,
    PlacementRule,
    Publication,
    Wire,
)
from cellwright.hub.geometry import covered

_CACHED = 8192  # documents that are remembered parsed; they are frozen, and their text is the key
_edge_form = lru_cache(maxsize=_CACHED)(EdgeForm.model_validate_json)
_heartbeat = lru_cache(maxsize=_CACHED)(Heartbeat.model_validate_json)
rule_of = lru_cache(maxsize=_CACHED)(PlacementRule.model_validate_json)
_publication = lru_cache(maxsize=_CACHED)(Publication.model_validate_json)
_area = lru_cache(maxsize=512)(Area.model_validate_json)  # a document may have megabytes

Areas = Mapping[tuple[str, str], Area]  # (tenant, name) -> area


class _Held(Wire):
    """A state without its edge and revision: what edges that the same rules select have in common."""

    hub_key: str
    protocol: int = PROTOCOL
    tenants: tuple[DesiredTenant, ...] = ()


_held = lru_cache(maxsize=_CACHED)(_Held.model_validate_json)


@dataclass(frozen=True)
class _Placed:
    """A model on an edge: by which rules."""

    pinned: bool
    priority: int


def refresh(connection: sa.Connection, hub_key: str, edge: str | None = None) -> tuple[str, ...]:
    """Compute the states of all edges anew (or of one); those that are others than before get the next revision. Returns their names."""
    t = tables.edges
    wanted = sa.select(t.c.name, t.c.document, t.c.revision, t.c.desired)
    rows = connection.execute(wanted if edge is None else wanted.where(t.c.name == edge)).all()
    if not rows:
        return ()
    states = _World(connection, hub_key).states([(row.name, _edge_form(row.document).location) for row in rows])
    changed = [
        {"edge": row.name, "next": row.revision + 1, "state": text_of(row.name, row.revision + 1, state)}
        for row, state in zip(rows, states, strict=True)
        if _held_text(row.desired) != state
    ]
    if changed:
        values = sa.update(t).values(revision=sa.bindparam("next"), desired=sa.bindparam("state"))
        connection.execute(values.where(t.c.name == sa.bindparam("edge")), changed)
    return tuple(str(found["edge"]) for found in changed)


def text_of(edge: str, revision: int, held: str) -> str:
    """A state as it is kept: JSON of `Desired`."""
    return f'{{"edge":"{edge}","revision":{revision},{held[1:]}'


def empty_held(hub_key: str) -> str:
    """What an edge holds that no rule selects."""
    return _Held(hub_key=hub_key).model_dump_json()


def _held_text(text: str) -> str:
    """The part of a kept state that begins with the hub's key; no name of an edge can hold the mark."""
    return "{" + text[text.index('"hub_key":') :]


def desired_of(connection: sa.Connection, edge: str) -> Desired | None:
    """What an edge shall hold; None: there is no such edge."""
    t = tables.edges
    row = connection.execute(sa.select(t.c.revision, t.c.desired).where(t.c.name == edge)).one_or_none()
    if row is None:
        return None
    held = _held(_held_text(row.desired))
    return Desired(edge=edge, revision=row.revision, protocol=held.protocol, hub_key=held.hub_key, tenants=held.tenants)


def revision_of(connection: sa.Connection, edge: str) -> int | None:
    """The revision of an edge's state; None: there is no such edge."""
    t = tables.edges
    return connection.execute(sa.select(t.c.revision).where(t.c.name == edge)).scalar_one_or_none()


def holders(connection: sa.Connection, tenant: str, model: str, *, seen_since_s: float = 0.0) -> tuple[sa.RowMapping, ...]:
    """Rows of edges that shall hold a model, by name; with `seen_since_s` those that were heard of since."""
    t = tables.edges
    wanted = sa.select(t).order_by(t.c.name)
    wanted = wanted.where(t.c.seen_s >= seen_since_s) if seen_since_s else wanted
    known: dict[str, bool] = {}

    def holds(state: str) -> bool:
        if state not in known:
            known[state] = any(m.name == model for t in _held(state).tenants if t.tenant == tenant for m in t.models)
        return known[state]

    return tuple(row for row in connection.execute(wanted).mappings() if holds(_held_text(row["desired"])))


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


def all_areas(connection: sa.Connection, tenant: str | None = None, names: Collection[str] | None = None) -> Areas:
    """All areas; with `tenant` those that it may name (its own and the operator's), with `names` those called so."""
    t = tables.areas
    wanted = sa.select(t.c.document).order_by(t.c.tenant, t.c.name)
    if tenant is not None:
        wanted = wanted.where(t.c.tenant.in_((tenant, OPERATOR)))
    if names is not None:
        wanted = wanted.where(t.c.name.in_(sorted(names)))
    areas = (_area(row) for row in connection.execute(wanted).scalars())
    return {(area.tenant, area.name): area for area in areas}


def area_named(areas: Areas, tenant: str, name: str) -> Area | None:
    """A tenant's own area of that name, else the operator's."""
    return areas.get((tenant, name)) or areas.get((OPERATOR, name))


class _World:
    """All that states follow from, read once."""

    def __init__(self, connection: sa.Connection, hub_key: str) -> None:
        self._hub_key = hub_key
        p, m, r = tables.publications, tables.models, tables.releases
        published = connection.execute(sa.select(p).where(p.c.document.is_not(None)))
        self._published = {(row.tenant, row.model): _publication(row.document) for row in published}
        self._shared = set(map(tuple, connection.execute(sa.select(m.c.tenant, m.c.name).where(m.c.visibility == "shared"))))
        documents = connection.execute(sa.select(tables.rules.c.document)).scalars()
        self._rules = list(self._live(rule_of(row) for row in documents))
        self._areas = all_areas(connection, names={name for _, rule in self._rules for name in rule.areas})
        same = sa.and_(p.c.tenant == r.c.tenant, p.c.model == r.c.model, p.c.document.is_not(None))
        wanted = sa.select(r.c.tenant, r.c.model, r.c.version, r.c.digest, r.c.bytes).join(p, same)
        self._releases = {(row.tenant, row.model, row.version): (row.digest, row.bytes) for row in connection.execute(wanted)}
        t = tables.tenants
        self._grants_from_s = {row.name: row.grants_from_s for row in connection.execute(sa.select(t.c.name, t.c.grants_from_s))}
        r = tables.revocations
        self._revoked: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        for row in connection.execute(sa.select(r).order_by(r.c.tenant, r.c.kind, r.c.name)):
            self._revoked[row.tenant, row.kind][row.name] = row.from_s
        self._keys: dict[str, list[str]] = defaultdict(list)
        for row in connection.execute(sa.select(tables.keys).order_by(tables.keys.c.tenant, tables.keys.c.id)):
            self._keys[row.tenant].append(row.pem)

    def states(self, edges: Sequence[tuple[str, Location]]) -> list[str]:
        """The state of each edge (name, place), as text without edge and revision."""
        if not self._rules:
            return [empty_held(self._hub_key)] * len(edges)
        selected_RE = self._selected(edges)  # R: rules, E: edges
        written: dict[bytes, str] = {}
        found = []
        for column_R in selected_RE.T:
            key = column_R.tobytes()
            if key not in written:
                written[key] = self._state([placed for placed, chosen in zip(self._rules, column_R, strict=True) if chosen])
            found.append(written[key])
        return found

    def _selected(self, edges: Sequence[tuple[str, Location]]) -> NDArray[np.bool_]:
        """Which rule selects which edge: (rules, edges)."""
        numbers = {name: number for number, (name, _) in enumerate(edges)}
        inside = {key: covered(area.geometry, [place for _, place in edges]) for key, area in self._areas.items()}
        selected_RE = np.zeros((len(self._rules), len(edges)), dtype=np.bool_)
        for number, (_, rule) in enumerate(self._rules):
            selected_RE[number] = not rule.areas and not rule.edges
            selected_RE[number, [numbers[name] for name in rule.edges if name in numbers]] = True
            for name in rule.areas:
                if (area := area_named(self._areas, rule.tenant, name)) is not None:
                    selected_RE[number] |= inside[area.tenant, area.name]
        return selected_RE

    def _state(self, rules: Iterable[tuple[tuple[str, str], PlacementRule]]) -> str:
        """What an edge holds that these rules select."""
        placed: dict[tuple[str, str], _Placed] = {}
        for key, rule in rules:
            before = placed.get(key, _Placed(False, rule.priority))
            placed[key] = _Placed(before.pinned or rule.pinned, max(before.priority, rule.priority))
        by_tenant: dict[str, list[DesiredModel]] = defaultdict(list)
        for (tenant, model), how in sorted(placed.items()):
            by_tenant[tenant].append(self._model(tenant, model, how))
        tenants = (self._tenant(tenant, models) for tenant, models in by_tenant.items())
        return _Held(hub_key=self._hub_key, tenants=tuple(tenants)).model_dump_json()

    def _tenant(self, tenant: str, models: list[DesiredModel]) -> DesiredTenant:
        keys = (self._hub_key, *(key for key in self._keys[tenant] if key != self._hub_key))
        return DesiredTenant(
            tenant=tenant,
            keys=keys,
            models=tuple(models),
            grants_from_s=self._grants_from_s[tenant],
            revoked_devices=self._revoked.get((tenant, "device"), {}),
            revoked_grants=tuple(self._revoked.get((tenant, "grant"), {})),
        )

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
            name=model,
            latest=publication.version,
            canary=publication.canary,
            terms=publication.terms,
            priority=placed.priority,
            versions=tuple(versions),
        )
