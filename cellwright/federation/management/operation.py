"""Service operation (M.3387 8.2, 8.4.1, 8.5): whose turn it is, which nodes take part, who may do what, and the topology."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import sqlalchemy as sa

from cellwright.errors import FederationError
from cellwright.federation.contract import Role
from cellwright.federation.management import tables
from cellwright.federation.management.capacity import less
from cellwright.federation.management.core import (
    Core,
    active,
    all_links,
    all_nodes,
    all_statuses,
    change,
    request_row,
    submitted_of,
)
from cellwright.federation.management.desk import Desk
from cellwright.federation.management.links import Network
from cellwright.federation.management.permissions import authorise, grant
from cellwright.federation.management.plans import grants, newest_topology
from cellwright.federation.management.reconstruction import rebuilt
from cellwright.federation.management.records import (
    Choice,
    Grant,
    NodeProperties,
    NodeStatus,
    Operation,
    Submitted,
    Topology,
)
from cellwright.federation.management.refusals import Conflict, NotAllowed
from cellwright.federation.management.scheduling import Preemption, Running, Start, reserved
from cellwright.federation.management.selection import best
from cellwright.federation.management.store import upsert
from cellwright.federation.management.topology import hierarchy, members, star


class Operations(Core):
    """What the FMLMS does with requests and nodes."""

    def next(self, only: str | None = None, *, any_data: bool = False, most: int | None = None) -> Start | None:
        """Start the request whose turn it is, on the nodes that are best for it; None: none can start now.

        A request that cannot start says why in its `reason`. Each is started once, whoever asks; a coordinator that comes back after
        a crash gets its request again by naming it.

        Args:
            only: start this one, if it is its turn or others that come first leave it room.
            any_data: do not ask what nodes have said of their data.
            most: owners at most.
        """
        with self.store.write() as connection:
            if only is not None and (again := _running(connection, only)):
                return again
            desk = Desk(self, connection, any_data, most)
            start = desk.next(only)
            desk.explain()
            if start is not None:
                now = {"status": "running", "nodes": json.dumps(start.nodes), "reason": start.words}
                started_s = request_row(connection, start.id)["started_s"]
                chosen = [choice.model_dump(mode="json") for choice in desk.choices[start.id]]
                change(connection, start.id, **now, started_s=started_s or self.now_s(), choices=json.dumps(chosen))
            return start

    def progress(self, request: str, round_: int) -> Submitted:
        """Note that a round is done; what comes back says whether the client has cancelled meanwhile."""
        with self.store.write() as connection:
            row = request_row(connection, request)
            if row["status"] == "running":
                change(connection, request, rounds=round_)
            return submitted_of(request_row(connection, request))

    def should_preempt(self, request: str, round_: int) -> Preemption | None:
        """Whether a request pauses now that a round is done (8.5); if so, its nodes are free and it waits in the queue again."""
        with self.store.write() as connection:
            found = Desk(self, connection).scheduler.should_preempt(request, round_, self.clock())
            if found:
                change(connection, request, status="preempted", reason=found.words, nodes="[]", rounds=round_)
            return found

    def queue(self) -> tuple[Submitted, ...]:
        """Requests that wait, in order."""
        with self.store.read() as connection:
            return Desk(self, connection).scheduler.queue()

    def choices(self, request: str) -> tuple[Choice, ...]:
        """Why each node takes part in a request or not (8.2); as it was decided when it last started."""
        with self.store.read() as connection:
            return tuple(Choice.model_validate(c) for c in json.loads(request_row(connection, request)["choices"]))

    def form(self, request: str, kind: Literal["star", "hierarchy"] = "star") -> Topology:
        """Give out the roles of a request that runs, grant permissions, and generate its topology (8.2, 8.4.1); the first, or anew.

        The coordinator is the best in the cloud, else at an edge; the auditor the best that is left; every edge that may
        coordinate can be the head of a region.

        Raises:
            Conflict: the request does not run.
            FederationError: a role cannot be filled, or an owner cannot be reached.
        """
        with self.store.write() as connection:
            row = request_row(connection, request)
            chosen = tuple(json.loads(row["nodes"]))
            if row["status"] != "running":
                raise Conflict(f"request {request} is {row['status']}; a topology is made for one that runs")
            nodes, statuses = all_nodes(connection), all_statuses(connection, self)
            owners = [node for node in nodes if node.name in chosen]
            topology = self._formed(request, kind, owners, nodes, statuses, connection)
            self._grant(connection, topology, nodes, statuses)
            return _record(self, connection, topology, _last_version(connection, request) + 1)

    def topology(self, request: str, version: int | None = None) -> Topology:
        """A topology of a request; None: the one in force.

        Raises:
            NotFound: there is none.
        """
        with self.store.read() as connection:
            request_row(connection, request)
            found = [t for t in _all_topologies(connection, request) if t.version == version]
            return found[0] if found else newest_topology(connection, request)

    def topologies(self, request: str) -> tuple[Topology, ...]:
        """All topologies that a request has had, oldest first."""
        with self.store.read() as connection:
            return _all_topologies(connection, request)

    def tend(
        self,
        request: str,
        reason: str = "",
        *,
        owners: Sequence[str] | None = None,
        out: Collection[str] = (),
        present: Topology | None = None,
    ) -> Topology:
        """Rebuild a request's topology if a node failed, ran out of resources, or a link degraded (8.4.1); else it stays as it is.

        Whoever left loses its permissions, whoever joined gets them.

        Args:
            owners: who is to take part; None: those that do.
            out: nodes that take no part in this request, whatever they report.
            present: the topology that is in force at the coordinator; None: the newest one here.

        Raises:
            FederationError: it cannot go on; says why.
        """
        with self.store.write() as connection:
            submitted = submitted_of(request_row(connection, request))
            topology = present or newest_topology(connection, request)
            nodes, statuses = all_nodes(connection), all_statuses(connection, self)
            new = rebuilt(
                topology,
                nodes,
                _without(out, _beside_others(connection, request, statuses)),
                all_links(connection),
                reason,
                rules=self.rules,
                need=submitted.request.per_node,
                owners=owners,
                least=submitted.request.least_owners,
            )
            if new is topology:
                return topology
            self._grant(connection, new, nodes, statuses)
            if submitted.status == "running":
                change(connection, request, nodes=json.dumps(new.owners))
            return _record(self, connection, new, max(new.version, _last_version(connection, request) + 1))

    def authorise(self, node: str, operation: Operation, request: str) -> Grant:
        """Whether a node may do something for a request (8.2), by the role it has there and the rules as they are now.

        Raises:
            NotAllowed: it may not; the message begins with the rule's name.
            NotFound: there is no such request.
        """
        with self.store.read() as connection:
            request_row(connection, request)
            found = next((n for n in all_nodes(connection) if n.name == node), None)
            if found is None:
                raise NotAllowed(f"rule 'known': no node '{node}' is registered")
            granted = grants(connection, request).get(node)
            if granted is None:
                raise NotAllowed(f"rule 'assigned': {node} takes no part in request {request}, or its permission was revoked")
            status = all_statuses(connection, self).get(node)
        return authorise(found, status, granted.role, operation, request, self.rules)

    def revoke(self, node: str, request: str, reason: str) -> None:
        """Take a node's permissions for a request (8.2)."""
        with self.store.write() as connection:
            _revoke(self, connection, request, [node], reason)

    def _formed(
        self,
        request: str,
        kind: Literal["star", "hierarchy"],
        owners: Sequence[NodeProperties],
        nodes: Sequence[NodeProperties],
        statuses: Mapping[str, NodeStatus],
        connection: sa.Connection,
    ) -> Topology:
        taken, links = [owner.name for owner in owners], all_links(connection)
        heads = best("coordinator", nodes, statuses, rules=self.rules, taken=taken)
        if not heads:
            raise FederationError(
                "no node can be coordinator: register one with that role, and the security and reliability that the rules ask for"
            )
        coordinator = heads[0]
        auditors = best("auditor", nodes, statuses, rules=self.rules, taken=[*taken, coordinator.name])
        auditor = auditors[0].name if auditors else None
        if kind == "star":
            return star(request, coordinator, owners, links=links, auditor=auditor)
        edges = [edge for edge in heads[1:] if edge.layer == "edge" and edge.name != auditor]
        reached = [edge for edge in edges if Network(links).up(edge.name, coordinator.name)]
        return hierarchy(request, coordinator, reached, owners, links=links, auditor=auditor)

    def _grant(
        self, connection: sa.Connection, topology: Topology, nodes: Sequence[NodeProperties], statuses: Mapping[str, NodeStatus]
    ) -> None:
        """Permissions of those in a topology, by their role; all others of the request lose theirs."""
        before, roles = grants(connection, topology.request), roles_in(topology)
        properties = {node.name: node for node in nodes}
        for name, role in roles.items():
            new = grant(properties[name], statuses.get(name), role, topology.request, self.rules)
            if before.get(name) != new:
                values = {"document": new.model_dump_json(), "granted_s": self.now_s(), "revoked_s": None, "reason": ""}
                upsert(connection, tables.permissions, {"request": topology.request, "node": name}, values)
        _revoke(self, connection, topology.request, sorted(set(before) - set(roles)), f"left the topology: {topology.reason}")


def roles_in(topology: Topology) -> dict[str, Role]:
    """The role of each node of a topology; heads of regions are coordinators."""
    roles: dict[str, Role] = dict.fromkeys(topology.owners, "data_owner")
    roles |= dict.fromkeys((topology.coordinator, *topology.regions), "coordinator")
    return roles | {name: "auditor" for name in members(topology) if name == topology.auditor}


def _running(connection: sa.Connection, request: str) -> Start | None:
    row = request_row(connection, request)
    nodes = tuple(json.loads(row["nodes"]))
    return Start(request, nodes, f"goes on, on {len(nodes)} nodes") if row["status"] == "running" else None


def _beside_others(connection: sa.Connection, request: str, statuses: Mapping[str, NodeStatus]) -> dict[str, NodeStatus]:
    """Statuses with what is free for this request: less what others have reserved."""
    taken = reserved(Running(s, nodes) for s, nodes in active(connection) if s.id != request and s.status == "running")
    return {
        name: status.model_copy(update={"free": less(status.free, taken[name])}) if name in taken else status
        for name, status in statuses.items()
    }


def _without(out: Collection[str], statuses: Mapping[str, NodeStatus]) -> dict[str, NodeStatus]:
    """Statuses in which these nodes take no part."""
    gone = {"alive": False, "reason": "left out by the coordinator"}
    return {name: status.model_copy(update=gone) if name in out else status for name, status in statuses.items()}


def _record(core: Core, connection: sa.Connection, topology: Topology, version: int) -> Topology:
    numbered = topology.model_copy(update={"version": version})
    row = {"request": topology.request, "version": version, "document": numbered.model_dump_json(), "made_s": core.now_s()}
    connection.execute(sa.insert(tables.topologies).values(**row))
    return numbered


def _all_topologies(connection: sa.Connection, request: str) -> tuple[Topology, ...]:
    c = tables.topologies.c
    rows = connection.execute(sa.select(c.document).where(c.request == request).order_by(c.version)).scalars()
    return tuple(Topology.model_validate_json(row) for row in rows)


def _last_version(connection: sa.Connection, request: str) -> int:
    return max((topology.version for topology in _all_topologies(connection, request)), default=0)


def _revoke(core: Core, connection: sa.Connection, request: str, nodes: Sequence[str], reason: str) -> None:
    c = tables.permissions.c
    meant = sa.and_(c.request == request, c.node.in_(nodes), c.revoked_s.is_(None))
    connection.execute(sa.update(tables.permissions).where(meant).values(revoked_s=core.now_s(), reason=reason))
