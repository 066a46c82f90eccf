"""Interface 1 (M.3387 clause 7): clients submit requests, follow and cancel them, and receive the model (8.1, 8.5, 9.1)."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from cellwright.errors import FederationError, Refused
from cellwright.federation.management import tables
from cellwright.federation.management.capacity import times
from cellwright.federation.management.core import Core, active, change, request_row, submitted_of
from cellwright.federation.management.delivery import packed
from cellwright.federation.management.records import ModelFile, ServiceRequest, Submitted, TaskProperties
from cellwright.federation.management.refusals import Conflict, NotFound
from cellwright.federation.management.scheduling import classify, order
from cellwright.federation.management.store import upsert

MOST_ACTIVE = 100  # requests of one client that wait or run
METRICS = {"regression": ("mse", "mae", "rmse"), "classification": ("precision", "recall", "auc", "f1", "accuracy")}


class Interface1(Core):
    """What clients ask of the FMLMS."""

    def submit(self, request: ServiceRequest, client: str) -> Submitted:
        """Take a request into the queue, classified (8.5).

        Raises:
            Refused: it contradicts itself.
            Conflict: the client has an active request of that name, or another one has its owners to itself.
        """
        _sensible(request)
        with self.store.write() as connection:
            _no_conflict(request, client, [submitted for submitted, _nodes in active(connection)])
            row = {
                "id": secrets.token_hex(8),
                "client": client,
                "name": request.name,
                "status": "queued",
                "class": classify(request).name,
                "submitted_s": self.now_s(),
                "rounds": 0,
                "reason": "",
                "run": "",
                "document": request.model_dump_json(),
                "nodes": "[]",
                "training": "{}",
            }
            connection.execute(sa.insert(tables.requests).values(row))
            return _positioned(connection, str(row["id"]))

    def follow(self, request: str, client: str | None = None) -> Submitted:
        """How a request stands, with its position while it waits; `client`: only if it is theirs.

        Raises:
            NotFound: there is none.
        """
        with self.store.read() as connection:
            request_row(connection, request, client)
            return _positioned(connection, request)

    def requests(
        self, client: str | None = None, *, status: str | None = None, limit: int | None = None
    ) -> tuple[Submitted, ...]:
        """All requests, or those of a client, newest first."""
        c = tables.requests.c
        wanted = sa.select(tables.requests).order_by(c.submitted_s.desc(), c.id).limit(limit)
        wanted = wanted if client is None else wanted.where(c.client == client)
        wanted = wanted if status is None else wanted.where(c.status == status)
        with self.store.read() as connection:
            return tuple(submitted_of(row) for row in connection.execute(wanted).mappings())

    def cancel(self, request: str, client: str | None = None, reason: str = "cancelled by its client") -> Submitted:
        """Take a request back; one that runs ends at its next round boundary, when its coordinator learns of it.

        Raises:
            NotFound: there is none.
            Conflict: it has ended already.
        """
        return self._end(request, "cancelled", reason, client=client)

    def fail(self, request: str, reason: str) -> Submitted:
        """A request could not be served; `reason` is for its client."""
        return self._end(request, "failed", reason)

    def deliver(self, request: str, content: bytes | Path, *, run: str = "", reason: str = "") -> ModelFile:
        """The trained model for the client (9.1): the request is finished.

        `content`: safetensors or a bundle as bytes, a file, or a bundle's folder. `run`: where the results lie; `reason`: why
        training ended.

        Raises:
            Refused: it is neither.
            NotFound, Conflict: there is no such request, or it does not run.
        """
        media_type, data = packed(content)
        with self.store.write() as connection:
            row = request_row(connection, request)
            if row["status"] != "running":
                raise Conflict(f"request {request} is {row['status']}; a model is delivered for one that runs")
            file = keep(self, connection, request, "trained", media_type, data)
            change(connection, request, status="finished", ended_s=self.now_s(), nodes="[]", run=run, reason=reason)
            return file

    def model(self, request: str, client: str | None = None) -> tuple[ModelFile, bytes]:
        """The model that was delivered; `client`: only if they asked for it.

        Raises:
            NotFound: there is no such request, or no model yet.
            FederationError: what is kept does not match its SHA-256.
        """
        with self.store.read() as connection:
            row = request_row(connection, request, client)
            return kept(self, connection, request, "trained", f"it is {row['status']}")

    def properties(self, request: str, owners: int | None = None) -> TaskProperties:
        """System properties of a task (8.1): type, priority, and the resources that all its owners need together.

        `owners`: how many; None: those chosen, or else the fewest that the request asks for.
        """
        with self.store.read() as connection:
            submitted = submitted_of(request_row(connection, request))
            chosen = next((len(nodes) for s, nodes in active(connection) if s.id == request and nodes), 0)
        return task_properties(submitted, owners or chosen or max(submitted.request.least_owners, len(submitted.request.owners)))

    def _end(self, request: str, status: str, reason: str, client: str | None = None) -> Submitted:
        with self.store.write() as connection:
            row = request_row(connection, request, client)
            if row["status"] not in tables.ACTIVE:
                raise Conflict(f"request {request} is {row['status']} already; it cannot be {status}")
            change(connection, request, status=status, ended_s=self.now_s(), reason=reason, nodes="[]")
            return submitted_of(request_row(connection, request))


def task_properties(submitted: Submitted, owners: int) -> TaskProperties:
    """Task properties (8.1.1) and its resource capacities with so many owners (8.1.2)."""
    request = submitted.request
    same = request.model_dump(include={"task", "priority", "importance", "delay_bound_s", "per_node"})
    total = times(request.per_node, owners)
    return TaskProperties.model_validate(
        {**same, "request": submitted.id, "class": submitted.class_, "owners": owners, "total": total}
    )


def keep(core: Core, connection: sa.Connection, request: str, kind: str, media_type: str, data: bytes) -> ModelFile:
    """Store a model of a request, sealed where there is a vault."""
    sha256 = hashlib.sha256(data).hexdigest()
    found = {"request": request, "kind": kind, "media_type": media_type, "sha256": sha256, "model_bytes": len(data)}
    file = ModelFile.model_validate(found)
    values = {
        "document": file.model_dump_json(),
        "content": core.sealed(data, f"model/{request}/{kind}"),
        "stored_s": core.now_s(),
    }
    upsert(connection, tables.models, {"request": request, "kind": kind}, values)
    return file


def kept(core: Core, connection: sa.Connection, request: str, kind: str, state: str) -> tuple[ModelFile, bytes]:
    """A stored model, whole.

    Raises:
        NotFound: there is none.
        FederationError: it is damaged.
    """
    same = sa.and_(tables.models.c.request == request, tables.models.c.kind == kind)
    row = connection.execute(sa.select(tables.models).where(same)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"request {request} has no {kind} model: {state}")
    file = ModelFile.model_validate_json(row["document"])
    data = core.opened(row["content"], f"model/{request}/{kind}")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise FederationError(
            f"the {kind} model of request {request} does not match its SHA-256; restore the database from a backup"
        )
    return file, data


def _sensible(request: ServiceRequest) -> None:
    """Refuse what contradicts itself."""
    known = METRICS[request.task]
    if wrong := sorted(set(request.target) - set(known)):
        raise Refused(f"target {', '.join(wrong)}: a {request.task} is judged by {', '.join(known)}")
    if request.owners and request.least_owners > len(set(request.owners)):
        raise Refused(
            f"at least {request.least_owners} owners are asked for, and {len(set(request.owners))} are named; name more or ask for less"
        )


def _no_conflict(request: ServiceRequest, client: str, others: Sequence[Submitted]) -> None:
    """Refuse what cannot be together with an active request. Another client's request is not named."""
    theirs = sum(other.client == client for other in others)
    if theirs >= MOST_ACTIVE:
        raise Conflict(f"{theirs} requests of yours wait or run, at most {MOST_ACTIVE} may; wait for some, or cancel them")
    for other in others:
        if other.client == client and other.request.name == request.name:
            raise Conflict(
                f"you have a request '{request.name}' that is {other.status} ({other.id}); cancel it, or choose another name"
            )
        shared = sorted(set(other.request.owners) & set(request.owners))
        if shared and (other.request.exclusive or request.exclusive):
            whose = f"your request '{other.request.name}'" if other.client == client else "another request"
            wants = "has them to itself" if other.request.exclusive else "uses them, and this one wants them to itself"
            raise Conflict(f"data owners {', '.join(shared)}: {whose} {wants}; wait until it has ended, or name other owners")


def _positioned(connection: sa.Connection, request: str) -> Submitted:
    """A request with its position in the queue, where it waits."""
    waiting = sorted((s for s, _nodes in active(connection) if s.status != "running"), key=order)
    found = next((rank for rank, s in enumerate(waiting, start=1) if s.id == request), None)
    return submitted_of(request_row(connection, request)).model_copy(update={"position": found})
