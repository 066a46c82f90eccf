"""What all parts of the FMLMS share: its database, its rules, its clock; how rows become records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy as sa

from cellwright.federation.management import tables
from cellwright.federation.management.permissions import SecurityRules
from cellwright.federation.management.records import Link, NodeProperties, NodeStatus, ServiceRequest, Submitted
from cellwright.federation.management.refusals import NotFound
from cellwright.federation.management.selection import Weights
from cellwright.federation.management.store import Store

OPERATOR = "operator"


class Vault(Protocol):
    """Encrypts what must not lie open in the database (10.2); `context` must be the same for both."""

    def seal(self, content: bytes, context: bytes) -> bytes: ...

    def unseal(self, sealed: bytes, context: bytes) -> bytes: ...


def utc() -> datetime:
    """Now."""
    return datetime.now(UTC)


@dataclass
class Core:
    """State and settings of an FMLMS."""

    store: Store
    rules: SecurityRules = field(default_factory=SecurityRules)
    weights: Weights = field(default_factory=Weights)
    clock: Callable[[], datetime] = utc
    silent_s: float | None = None  # a node that was not heard of for longer is taken as dead; None: never
    vault: Vault | None = None  # None: models and metadata are kept as they were given

    def now_s(self) -> float:
        """Seconds since 1970."""
        return self.clock().timestamp()

    def sealed(self, content: bytes, context: str) -> bytes:
        """`content` as it is kept."""
        return self.vault.seal(content, context.encode()) if self.vault else content

    def opened(self, content: bytes, context: str) -> bytes:
        """What `sealed` was given."""
        return self.vault.unseal(content, context.encode()) if self.vault else content


def request_row(connection: sa.Connection, request: str, client: str | None = None) -> sa.RowMapping:
    """The row of a request.

    Raises:
        NotFound: there is none, or it is another client's.
    """
    found = connection.execute(sa.select(tables.requests).where(tables.requests.c.id == request)).mappings().one_or_none()
    if found is None or client not in (None, found["client"]):
        raise NotFound(f"there is no request '{request}'; GET /v1/requests (or `requests()`) lists those there are")
    return found


def submitted_of(row: sa.RowMapping) -> Submitted:
    """A request as it is followed."""
    same = {name: row[name] for name in ("id", "client", "status", "class", "rounds", "reason", "run")}
    times = {name: _time(row[f"{name}_s"]) for name in ("submitted", "started", "ended")}
    return Submitted.model_validate({**same, **times, "request": ServiceRequest.model_validate_json(row["document"])})


def active(connection: sa.Connection) -> list[tuple[Submitted, tuple[str, ...]]]:
    """Requests that wait or run, and the nodes that each has reserved."""
    rows = connection.execute(sa.select(tables.requests).where(tables.requests.c.status.in_(tables.ACTIVE))).mappings()
    return [(submitted_of(row), tuple(json.loads(row["nodes"]))) for row in rows]


def change(connection: sa.Connection, request: str, **values: Any) -> None:
    """Change columns of a request."""
    connection.execute(sa.update(tables.requests).where(tables.requests.c.id == request).values(**values))


def all_nodes(connection: sa.Connection) -> tuple[NodeProperties, ...]:
    """All registered nodes, by name."""
    rows = connection.execute(sa.select(tables.nodes.c.document).order_by(tables.nodes.c.name)).scalars()
    return tuple(NodeProperties.model_validate_json(row) for row in rows)


def all_links(connection: sa.Connection) -> tuple[Link, ...]:
    """All links that are known, by their ends."""
    order = (tables.links.c.source, tables.links.c.target)
    return tuple(
        Link.model_validate_json(row) for row in connection.execute(sa.select(tables.links.c.document).order_by(*order)).scalars()
    )


def all_statuses(connection: sa.Connection, core: Core) -> dict[str, NodeStatus]:
    """What each node last reported; one that fell silent is not alive."""
    rows = connection.execute(sa.select(tables.statuses.c.document).order_by(tables.statuses.c.node)).scalars()
    found = (NodeStatus.model_validate_json(row) for row in rows)
    return {status.node: _heard(status, core) for status in found}


def _heard(status: NodeStatus, core: Core) -> NodeStatus:
    if core.silent_s is None or status.seen is None or not status.alive:
        return status
    silent_s = (core.clock() - status.seen).total_seconds()
    if silent_s <= core.silent_s:
        return status
    return status.model_copy(update={"alive": False, "reason": f"not heard of for {silent_s:.0f} s"})


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
