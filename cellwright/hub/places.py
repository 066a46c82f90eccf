"""Areas, edges and placement rules: where things are, and where models shall be."""

from __future__ import annotations

import sqlalchemy as sa

from cellwright.database import upsert
from cellwright.hub import tables
from cellwright.hub.contract import (
    OPERATOR,
    Area,
    AreaForm,
    Desired,
    Edge,
    EdgeForm,
    Heartbeat,
    HeartbeatAnswer,
    PlacementForm,
    PlacementRule,
)
from cellwright.hub.core import Core, Who
from cellwright.hub.desired import (
    all_areas,
    all_edges,
    area_named,
    desired_of,
    edge_of,
    empty_held,
    revision_of,
    rule_of,
    text_of,
)
from cellwright.hub.geometry import checked
from cellwright.hub.models import BlobFile, file_of, model_row
from cellwright.hub.refusals import Conflict, HubRefused, NotFound, TooLarge

_MOST_AREAS, _MOST_RULES = 1_000, 1_000
_MOST_AREA_CHARACTERS = 16 << 20  # of a tenant's areas together, as JSON


class Areas(Core):
    """Areas of tenants; the operator's are for all."""

    def areas(self, who: Who) -> tuple[Area, ...]:
        """The asking tenant's areas and the operator's."""
        with self.store.read() as connection:
            return tuple(all_areas(connection, who.tenant).values())

    def put_area(self, who: Who, area: str, form: AreaForm) -> Area:
        """Make or change an area. Raises HubRefused."""
        found = Area(**form.model_dump(exclude={"geometry"}), geometry=checked(form.geometry), tenant=who.tenant, name=area)
        document = found.model_dump_json()
        with self.changing(concerns=lambda connection: _is_named(connection, who.tenant, area)) as connection:
            _bounded(connection, tables.areas, who.tenant, area, _MOST_AREAS)
            _bounded_text(connection, who.tenant, area, len(document))
            upsert(connection, tables.areas, {"tenant": who.tenant, "name": area}, {"document": document})
            self.note(connection, who, "area put", area)
        return found

    def delete_area(self, who: Who, area: str) -> None:
        """Delete an area. Raises NotFound; Conflict where a rule names it."""
        t, r = tables.areas, tables.rules
        with self.changing() as connection:
            mine = r.c.tenant.is_not(None) if who.tenant == OPERATOR else r.c.tenant == who.tenant
            rules = (
                PlacementRule.model_validate_json(d) for d in connection.execute(sa.select(r.c.document).where(mine)).scalars()
            )
            left = {key: found for key, found in all_areas(connection).items() if key != (who.tenant, area)}
            for rule in rules:
                if area in rule.areas and area_named(left, rule.tenant, area) is None:
                    raise Conflict(f"a rule names the area '{area}'; change or delete the rule first")
            if not connection.execute(sa.delete(t).where(t.c.tenant == who.tenant, t.c.name == area)).rowcount:
                raise NotFound(f"there is no area '{area}' of yours; GET /v1/areas lists them")
            self.note(connection, who, "area delete", area)


class Placement(Core):
    """Rules of tenants."""

    def rules(self, who: Who) -> tuple[PlacementRule, ...]:
        """The asking tenant's rules, the highest priority first."""
        t = tables.rules
        wanted = sa.select(t.c.document).where(t.c.tenant == who.tenant).order_by(t.c.priority.desc(), t.c.name)
        with self.store.read() as connection:
            return tuple(PlacementRule.model_validate_json(row) for row in connection.execute(wanted).scalars())

    def place(self, who: Who, rule: str, form: PlacementForm) -> PlacementRule:
        """Make or change a rule.

        Raises:
            NotFound: a model that is not there, or not shared.
            HubRefused: an area or an edge that is not there.
        """
        found = PlacementRule(**form.model_dump(), tenant=who.tenant, name=rule)
        with self.changing() as connection:
            model_row(connection, who.tenant, form.model, form.owner)
            self._refuse_unknown(connection, found)
            _bounded(connection, tables.rules, who.tenant, rule, _MOST_RULES)
            values = {"owner": form.owner or who.tenant, "model": form.model, "priority": form.priority}
            keys = {"tenant": who.tenant, "name": rule}
            upsert(connection, tables.rules, keys, {**values, "document": found.model_dump_json()})
            self.note(connection, who, "place", rule, found.model_dump_json(exclude_defaults=True))
        return found

    def delete_rule(self, who: Who, rule: str) -> None:
        """Delete a rule. Raises NotFound."""
        t = tables.rules
        with self.changing() as connection:
            if not connection.execute(sa.delete(t).where(t.c.tenant == who.tenant, t.c.name == rule)).rowcount:
                raise NotFound(f"there is no rule '{rule}' of yours; GET /v1/placement lists them")
            self.note(connection, who, "place delete", rule)

    def _refuse_unknown(self, connection: sa.Connection, rule: PlacementRule) -> None:
        areas = all_areas(connection, rule.tenant)
        for area in rule.areas:
            if area_named(areas, rule.tenant, area) is None:
                known = ", ".join(sorted({name for _, name in areas})) or "none"
                raise HubRefused(f"there is no area '{area}' for you; there are: {known[:300]}")
        edges = set(connection.execute(sa.select(tables.edges.c.name)).scalars()) if rule.edges else set()
        if missing := set(rule.edges) - edges:
            raise HubRefused(f"there is no edge '{min(missing)}'; GET /v1/edges lists those that have registered")


class Edges(Core):
    """Edges: who they are, what they say, what they shall hold."""

    def edges(self, who: Who) -> tuple[Edge, ...]:
        """All edges; their heartbeats, which name other tenants' models, are for operators."""
        with self.store.read() as connection:
            return tuple(self.shown(edge, who) for edge in all_edges(connection))

    def edge(self, who: Who, edge: str) -> Edge:
        """One edge. Raises NotFound."""
        with self.store.read() as connection:
            return self.shown(_edge(connection, edge), who)

    def shown(self, edge: Edge, who: Who | None) -> Edge:
        """An edge as somebody may see it, and whether it was heard of lately."""
        alive = edge.seen_s is not None and self.clock() - edge.seen_s <= self.settings.alive_s
        told = edge.heartbeat if who is None or who.operator else None
        return edge.model_copy(update={"alive": alive, "heartbeat": told})

    def register_edge(self, who: Who, edge: str, form: EdgeForm) -> Edge:
        """An edge tells of itself; it gets its first state at once."""
        t, now = tables.edges, self.clock()
        with self.changing(edge=edge) as connection:
            values = {"document": form.model_dump_json(), "seen_s": now}
            if not connection.execute(sa.update(t).where(t.c.name == edge).values(**values)).rowcount:
                first = int(
                    now * 1000
                )  # above all that an edge of this name had before it was deleted: equal ones mean equal states
                state = text_of(edge, first, empty_held(self.key_pem))
                connection.execute(sa.insert(t).values(name=edge, registered_s=now, revision=first, desired=state, **values))
            self.note(connection, who, "edge register", edge, form.url)
        return self.edge(who, edge)

    def delete_edge(self, who: Who, edge: str) -> None:
        """Forget an edge. Raises NotFound."""
        with self.store.write() as connection:
            _edge(connection, edge)
            connection.execute(sa.delete(tables.edges).where(tables.edges.c.name == edge))
            self.note(connection, who, "edge delete", edge)

    def heartbeat(self, edge: str, beat: Heartbeat) -> HeartbeatAnswer:
        """An edge is alive. Raises NotFound."""
        t, now = tables.edges, self.clock()
        with self.store.write() as connection:
            revision = revision_of(connection, edge)
            if revision is None:
                raise _no_edge(edge)
            connection.execute(sa.update(t).where(t.c.name == edge).values(seen_s=now, heartbeat=beat.model_dump_json()))
        return HeartbeatAnswer(revision=revision, clock_skew_s=round(beat.time_s - now, 3))

    def desired(self, edge: str, revision: int = 0) -> Desired | None:
        """What an edge shall hold, unless it is of that very revision. Raises NotFound."""
        with self.store.read() as connection:
            now = revision_of(connection, edge)
            if now is None:
                raise _no_edge(edge)
            return None if now == revision else desired_of(connection, edge)

    def revisions(self) -> dict[str, int]:
        """Of each edge's state."""
        with self.store.read() as connection:
            rows = connection.execute(sa.select(tables.edges.c.name, tables.edges.c.revision))
            return {row.name: row.revision for row in rows}

    def pulled(self, edge: str, tenant: str, model: str, version: str, path: str) -> BlobFile:
        """A file that an edge may pull: of a version that it shall hold. Raises NotFound."""
        with self.store.read() as connection:
            state = desired_of(connection, edge)
            held = {(t.tenant, m.name, v.version) for t in (state.tenants if state else ()) for m in t.models for v in m.versions}
            if (tenant, model, version) not in held:
                raise NotFound(
                    f"edge '{edge}' shall not hold '{model} {version}' of '{tenant}'; GET /v1/edges/{edge}/desired says what"
                )
            return file_of(connection, tenant, model, version, path)


def _edge(connection: sa.Connection, edge: str) -> Edge:
    row = connection.execute(sa.select(tables.edges).where(tables.edges.c.name == edge)).mappings().one_or_none()
    if row is None:
        raise _no_edge(edge)
    return edge_of(row)


def _no_edge(edge: str) -> NotFound:
    return NotFound(f"there is no edge '{edge}'; it registers itself (PUT /v1/edges/{edge})")


def _bounded(connection: sa.Connection, table: sa.Table, tenant: str, name: str, most: int) -> None:
    """Room for one of a new name; one that is changed needs none."""
    others = sa.select(sa.func.count()).select_from(table).where(table.c.tenant == tenant, table.c.name != name)
    if connection.execute(others).scalar_one() >= most:
        raise HubRefused(f"a tenant has at most {most} {table.name}; delete some first")


def _bounded_text(connection: sa.Connection, tenant: str, area: str, characters: int) -> None:
    t = tables.areas
    others = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(t.c.document)), 0)).where(
        t.c.tenant == tenant, t.c.name != area
    )
    if connection.execute(others).scalar_one() + characters > _MOST_AREA_CHARACTERS:
        raise TooLarge(f"a tenant's areas have at most {_MOST_AREA_CHARACTERS:,} characters together; simplify or delete some")


def _is_named(connection: sa.Connection, tenant: str, area: str) -> bool:
    """Whether a rule may mean an area of this tenant."""
    r = tables.rules
    wanted = sa.select(r.c.document) if tenant == OPERATOR else sa.select(r.c.document).where(r.c.tenant == tenant)
    return any(area in rule_of(document).areas for document in connection.execute(wanted).scalars())
