"""Interface 2 (M.3387 clause 7): nodes register, report status, resources and metadata, and get their plan (8.3, 9.1, 10.1)."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from cellwright.federation.management import tables
from cellwright.federation.management.bounds import check_dataset, check_links, check_metadata
from cellwright.federation.management.core import Core, all_links, all_nodes, all_statuses
from cellwright.federation.management.records import (
    Capacity,
    Holding,
    Link,
    NodeProperties,
    NodeStatus,
)
from cellwright.federation.management.refusals import Conflict, NotAllowed, NotFound
from cellwright.federation.management.store import upsert
from cellwright.federation.management.tokens import Ceiling


class Interface2(Core):
    """What nodes and the FMLMS tell each other."""

    def register(self, *nodes: NodeProperties, ceiling: Ceiling | None = None) -> None:
        """Nodes, new or as they were registered before (8.3); each new one counts as alive, with all of its capacity free.

        `ceiling`: the most it may claim, where a node registers itself; None: the operator registers it.

        Raises:
            NotAllowed: it claims a role or a security level that it may not.
            Conflict: another node of that name is registered.
        """
        with self.store.write() as connection:
            known = {node.name: node for node in all_nodes(connection)}
            for node in nodes:
                within(node, ceiling)
                if known.get(node.name, node) != node:
                    raise Conflict(
                        f"a node '{node.name}' with other properties is registered; modify it (PUT), or choose another name"
                    )
                if node.name not in known:
                    self._write(connection, node)
                    self._report(connection, NodeStatus(node=node.name, free=node.capacity, seen=self.clock()))
                    known[node.name] = node

    def modify(self, node: NodeProperties, *, ceiling: Ceiling | None = None) -> NodeProperties:
        """Change a node's properties (8.3).

        Raises:
            NotFound: no such node is registered.
            NotAllowed: it claims what it may not, or another key than the one that is known.
        """
        within(node, ceiling)
        with self.store.write() as connection:
            known = self._known(connection, node.name)
            if ceiling is not None and known.public_key not in ("", node.public_key):
                raise NotAllowed(f"rule 'key': {node.name} has given a public key before; only the operator can replace it")
            self._write(connection, node)
        return node

    def heartbeat(self, node: str, *, free: Capacity | None = None, alive: bool = True, reason: str = "") -> NodeStatus:
        """What a node reports of itself: alive, what it has free. How reliable it is and what it earned, others say (`rate`).

        Raises:
            NotFound: no such node is registered.
        """
        with self.store.write() as connection:
            self._known(connection, node)
            before = self._status(connection, node)
            new = {"alive": alive, "reason": reason, "seen": self.clock(), "free": free or before.free}
            return self._report(connection, before.model_copy(update=new))

    def rate(
        self,
        node: str,
        *,
        reliability: float | None = None,
        contribution: float | None = None,
        reward: float | None = None,
        rounds: int | None = None,
    ) -> NodeStatus:
        """What the auditor (reliability) and the evaluation of contributions (8.4.2) say of a node; None: as it was.

        Raises:
            NotFound: no such node is registered.
        """
        given = {"reliability": reliability, "contribution": contribution, "reward": reward, "rounds": rounds}
        with self.store.write() as connection:
            self._known(connection, node)
            before = self._status(connection, node)
            return self._report(
                connection, NodeStatus.model_validate(before.model_dump() | {k: v for k, v in given.items() if v is not None})
            )

    def nodes(self) -> tuple[NodeProperties, ...]:
        """All registered nodes, by name."""
        with self.store.read() as connection:
            return all_nodes(connection)

    def statuses(self) -> dict[str, NodeStatus]:
        """What each node last reported; one that fell silent is not alive."""
        with self.store.read() as connection:
            return all_statuses(connection, self)

    def set_links(self, links: Iterable[Link]) -> None:
        """Links between nodes, as measured; each replaces what was known of its pair in that direction.

        Raises:
            Refused: more would begin at one node than are kept.
        """
        links = tuple(links)
        with self.store.write() as connection:
            check_links(connection, links)
            for link in links:
                values = {"document": link.model_dump_json()}
                upsert(connection, tables.links, {"source": link.source, "target": link.target}, values)

    def links(self) -> tuple[Link, ...]:
        """All links that are known."""
        with self.store.read() as connection:
            return all_links(connection)

    def declare(self, *holdings: Holding) -> None:
        """What nodes say of their data, so that they can be chosen for them (10.4).

        Raises:
            NotFound: no such node is registered.
            Refused: it would hold more data sets than are kept of one node.
        """
        with self.store.write() as connection:
            for holding in holdings:
                self._known(connection, holding.node)
                check_dataset(connection, tables.holdings, holding.node, holding.dataset)
                keys = {"node": holding.node, "dataset": holding.dataset}
                upsert(connection, tables.holdings, keys, {"document": holding.model_dump_json()})

    def holdings(self) -> dict[str, list[Holding]]:
        """What all nodes have said of their data, by node."""
        with self.store.read() as connection:
            return all_holdings(connection)

    def store_metadata(self, node: str, dataset: str, content: bytes) -> int:
        """Keep metadata of a node's raw data (10.1), a JSON document whose meaning others know; returns its version, from 1.

        Raises:
            NotFound: no such node is registered.
            TooLarge: the document is too large.
            Refused: more versions, data sets or bytes than are kept of one node.
        """
        with self.store.write() as connection:
            self._known(connection, node)
            version = (_newest(connection, node, dataset) or 0) + 1
            check_metadata(connection, node, dataset, len(content), version)
            sealed = self.sealed(content, f"metadata/{node}/{dataset}/{version}")
            row = {"node": node, "dataset": dataset, "version": version, "content": sealed, "stored_s": self.now_s()}
            connection.execute(sa.insert(tables.raw_metadata).values(**row))
            return version

    def metadata(self, node: str, dataset: str, version: int | None = None) -> tuple[int, bytes]:
        """A version of the metadata of a node's raw data; None: the newest.

        Raises:
            NotFound: there is none.
        """
        c = tables.raw_metadata.c
        with self.store.read() as connection:
            wanted = version or _newest(connection, node, dataset)
            same = sa.and_(c.node == node, c.dataset == dataset, c.version == wanted)
            found = connection.execute(sa.select(c.content).where(same)).scalar_one_or_none()
        if found is None or wanted is None:
            raise NotFound(f"{node} has given no metadata of '{dataset}'{f' in version {version}' if version else ''}")
        return wanted, self.opened(found, f"metadata/{node}/{dataset}/{wanted}")

    def _known(self, connection: sa.Connection, node: str) -> NodeProperties:
        found = _node(connection, node)
        if found is None:
            raise NotFound(f"no node '{node}' is registered; register it first (POST /v1/nodes, or `register`)")
        return found

    def _write(self, connection: sa.Connection, node: NodeProperties) -> None:
        values = {"document": node.model_dump_json(), "modified_s": self.now_s()}
        upsert(connection, tables.nodes, {"name": node.name}, values)

    def _report(self, connection: sa.Connection, status: NodeStatus) -> NodeStatus:
        upsert(connection, tables.statuses, {"node": status.node}, {"document": status.model_dump_json()})
        return status

    def _status(self, connection: sa.Connection, node: str) -> NodeStatus:
        found = sa.select(tables.statuses.c.document).where(tables.statuses.c.node == node)
        return NodeStatus.model_validate_json(connection.execute(found).scalar_one())


def within(node: NodeProperties, ceiling: Ceiling | None) -> None:
    """Refuse what a node may not claim for itself."""
    if ceiling is None:
        return
    if more := sorted(set(node.roles) - set(ceiling.roles)):
        raise NotAllowed(f"rule 'role': {node.name} claims to be {', '.join(more)}; its token allows {', '.join(ceiling.roles)}")
    if node.security > ceiling.security:
        raise NotAllowed(f"rule 'security': {node.name} claims level {node.security}; its token allows {ceiling.security}")


def all_holdings(connection: sa.Connection) -> dict[str, list[Holding]]:
    """What all nodes have said of their data, by node."""
    found: dict[str, list[Holding]] = {}
    for row in connection.execute(sa.select(tables.holdings.c.document).order_by(tables.holdings.c.dataset)).scalars():
        holding = Holding.model_validate_json(row)
        found.setdefault(holding.node, []).append(holding)
    return found


def _node(connection: sa.Connection, name: str) -> NodeProperties | None:
    found = connection.execute(sa.select(tables.nodes.c.document).where(tables.nodes.c.name == name)).scalar_one_or_none()
    return None if found is None else NodeProperties.model_validate_json(found)


def _newest(connection: sa.Connection, node: str, dataset: str) -> int | None:
    c = tables.raw_metadata.c
    found: int | None = connection.execute(
        sa.select(sa.func.max(c.version)).where(c.node == node, c.dataset == dataset)
    ).scalar_one()
    return found
