"""What goes down to the nodes (M.3387 interface 2, 9.1; I.3, step 3): one plan a node and request, and the initial model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cellwright.federation.management import tables
from cellwright.federation.management.core import change, request_row, submitted_of
from cellwright.federation.management.delivery import packed
from cellwright.federation.management.interface1 import keep, kept, task_properties
from cellwright.federation.management.interface2 import Interface2
from cellwright.federation.management.records import Grant, ModelFile, Plan, Topology, Training
from cellwright.federation.management.refusals import NotAllowed, NotFound
from cellwright.federation.management.topology import children_of, members, parent_of


class Plans(Interface2):
    """What each node must know."""

    def configure(self, request: str, training: Training, initial_model: bytes | Path | None = None) -> None:
        """Algorithm, aggregation, privacy and channel parameters of a request and its initial model (9.1–9.3), as its nodes get them."""
        with self.store.write() as connection:
            request_row(connection, request)
            change(connection, request, training=training.model_dump_json())
            if initial_model is not None:
                keep(self, connection, request, "initial", *packed(initial_model))

    def plan_for(self, node: str, request: str) -> Plan:
        """All that a node must know for a request (I.3, step 3).

        Raises:
            NotFound: there is no such request or node, or no topology yet.
            NotAllowed: the node takes no part in it.
        """
        with self.store.read() as connection:
            row, properties = request_row(connection, request), self._known(connection, node)
            topology = newest_topology(connection, request)
            granted = grants(connection, request)
            if node not in members(topology) or node not in granted:
                raise NotAllowed(f"rule 'assigned': {node} takes no part in request {request}; only its nodes get its plan")
            initial: str | None = connection.execute(_initial(request)).scalar_one_or_none()
        return Plan(
            node=node,
            request=request,
            role=granted[node].role,
            operations=granted[node].operations,
            task=task_properties(submitted_of(row), len(topology.owners)),
            properties=properties,
            topology=topology,
            parent=parent_of(topology, node),
            children=children_of(topology, node),
            training=Training.model_validate_json(row["training"]),
            initial_model=ModelFile.model_validate_json(initial) if initial else None,
        )

    def initial_model(self, node: str, request: str) -> tuple[ModelFile, bytes]:
        """The initial model (9.1), for a node that takes part.

        Raises:
            NotFound, NotAllowed: as `plan_for`; or there is no initial model.
        """
        self.plan_for(node, request)
        with self.store.read() as connection:
            return kept(self, connection, request, "initial", "its nodes draw it from the task's seed")


def newest_topology(connection: sa.Connection, request: str) -> Topology:
    """The topology of a request as it is now.

    Raises:
        NotFound: there is none yet.
    """
    c = tables.topologies.c
    newest = sa.select(c.document).where(c.request == request).order_by(c.version.desc()).limit(1)
    found = connection.execute(newest).scalar_one_or_none()
    if found is None:
        raise NotFound(f"request {request} has no topology yet; it has one once it runs")
    return Topology.model_validate_json(found)


def grants(connection: sa.Connection, request: str) -> dict[str, Grant]:
    """What nodes may do for a request, by node; what was revoked is not among it."""
    c = tables.permissions.c
    rows = connection.execute(sa.select(c.document).where(c.request == request, c.revoked_s.is_(None))).scalars()
    return {grant.node: grant for grant in map(Grant.model_validate_json, rows)}


def _initial(request: str) -> sa.Select[Any]:
    return sa.select(tables.models.c.document).where(tables.models.c.request == request, tables.models.c.kind == "initial")
